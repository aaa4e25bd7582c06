"""Molecular dynamics on any number of ranks.

state.py        atoms of a rank, the cell, sums over ranks
domain.py       who owns which atom; ghosts: exchange, borders, forward, reverse
random.py       random numbers that depend on (seed, step, id) alone
integrators.py  NVE, Langevin, Bussi, Nosé-Hoover chains, stochastic cell rescaling
dynamics.py     the loop over steps
forces.py       ghosts forward, kernel, ghost forces back; deviation of a committee
simulation.py   a simulation with its files, from Python or md.json
command.py      dplite md as a person sees it; estimate.py: --dry-run
settings.py     md.json
output.py       log, trajectories, model deviation
checkpoint.py   restart files

Nothing here imports torch; mpi4py is imported when a simulation starts.
"""
