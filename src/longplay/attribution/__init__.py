"""Attribution: one delayed outcome shared out over the exposures before it, less what would have
happened without them."""
