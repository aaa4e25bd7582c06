"""The Deep Potential in torch: the reference that every other implementation is compared with.

network.py     dense layers, and their forward-mode derivative
batch.py       frames and neighbor lists as the index tensors the model reads
descriptor.py  environment matrix, embedding, A_i, D_i
fitting.py     D_i -> E_i
shortrange.py  pair energies in place of E_i where atoms are close
potential.py   E, F, virial; model files; evaluation of one structure
"""
