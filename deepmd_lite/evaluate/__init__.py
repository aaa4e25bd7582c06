"""What a model is worth: errors against reference data, disagreement of several models, pictures.

predict.py      a model on all frames of a system
test.py         RMSE and MAE of energy, force and virial; per system and per element
model_devi.py   deviation of several models, in DeePMD-kit's columns
validate.py     the engine against the reference implementation, on the same frames
show.py         what a model file holds
diagnostics.py  path norms, generalization gap and complexity of a model: dplite show --diagnostics
frame_errors.py errors frame by frame, and intervals by drawing frames anew
sample_curve.py errors against the number of training frames: dplite learning-curve
sample_curve_report.py   its laws, tables and picture
decomposition.py  approximation, estimation and optimization error, where the truth is an analytic teacher
dynamics.py     drift of the energy and radial distribution of a trajectory
trajectory.py   frames of a trajectory, unwrapped
analyze.py      what dplite analyze does, from one pass over a trajectory
structure.py    radial distributions and coordination numbers
correlations.py mean square displacement, velocity autocorrelation, vibrations
plots.py        parity, learning curve, energy against time, radial distribution
"""
