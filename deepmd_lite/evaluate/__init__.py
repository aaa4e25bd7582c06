"""What a model is worth: errors against reference data, disagreement of several models, pictures.

predict.py      a model on all frames of a system
test.py         RMSE and MAE of energy, force and virial; per system and per element
model_devi.py   deviation of several models, in DeePMD-kit's columns
validate.py     the engine against the reference implementation, on the same frames
show.py         what a model file holds
dynamics.py     drift of the energy and radial distribution of a trajectory
trajectory.py   frames of a trajectory, unwrapped
analyze.py      what dplite analyze does, from one pass over a trajectory
structure.py    radial distributions and coordination numbers
correlations.py mean square displacement, velocity autocorrelation, vibrations
plots.py        parity, learning curve, energy against time, radial distribution
"""
