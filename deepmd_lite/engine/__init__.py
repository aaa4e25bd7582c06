"""The engine: evaluation of trained models in Numba, with the contract of ``model.potential.DeepPot``.

network.py     dense layers on blocks of rows; a tanh for vector instructions
tables.py      embedding nets as piecewise cubics with a measured error
kernels.py     neighbor row -> R, G, A, D -> fitting net -> forces, fused
shortrange.py  pair energies in place of the nets' where atoms are close
compiled.py    `CompiledPot`: a model file made ready for the kernels
"""
