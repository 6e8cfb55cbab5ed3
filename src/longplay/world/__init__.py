"""A simulated service with a known long-term truth: the tests, the docs and the demo run on it."""

from longplay.world.catalogue import START, Catalogue
from longplay.world.listeners import Listeners, State
from longplay.world.parameters import WORLDS, WorldConfig
from longplay.world.simulator import Simulator
from longplay.world.world import World

__all__ = [
    "START",
    "WORLDS",
    "Catalogue",
    "Listeners",
    "Simulator",
    "State",
    "World",
    "WorldConfig",
]
