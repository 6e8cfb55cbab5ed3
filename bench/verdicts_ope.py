def rows(simulations, seed): return []
