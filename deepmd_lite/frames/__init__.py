"""Frames of quantum-mechanical data.

system.py       the frames of one composition in memory, and what makes them usable
layout.py       addresses, file names, and the two places where a system lives
store.py        read deepmd/hdf5 and deepmd/npy; the public face of this folder
write.py        write them, whole or frame by frame
conventions.py  keys, units, and what a stress or virial means
convert.py      files that ASE reads
geometry.py     closest pair, number of neighbors, the ``sel`` to use
sanity.py       do the numbers look like eV and Å; do forces follow the energies
check.py        what is wrong or odd about a data set
split.py        training, validation and test frames
label.py        frames from any ASE calculator
"""
