"""Frames of quantum-mechanical data.

system.py   the frames of one composition in memory, and what makes them usable
layout.py   addresses, file names, and the two places where a system lives
store.py    read deepmd/hdf5 and deepmd/npy; the public face of this folder
write.py    write them, whole or frame by frame
convert.py  files that ASE reads, with an explicit convention for units and stress
check.py    what is wrong or odd about a data set, and the ``sel`` to use
split.py    training, validation and test frames
label.py    frames from any ASE calculator
"""
