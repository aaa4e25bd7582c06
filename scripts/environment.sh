# Sourced by quickstart.sh and test.sh: a virtual environment in .venv with the package and its tested dependencies.
# Sets $bin to its programs. Made once; made again when setup.cfg or the constraints change.
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "Python 3.10 or newer is needed, found $("$python" --version); set PYTHON to another one" >&2
  exit 2
}
bin=$PWD/.venv/bin
stamp=$(cat setup.cfg pyproject.toml scripts/constraints.txt | cksum)
if [[ ! -f .venv/installed || $(cat .venv/installed) != "$stamp" ]]; then
  echo "Installing into .venv (once, a few minutes) ..."
  [[ -x $bin/python ]] || "$python" -m venv .venv
  "$bin/python" -m pip install --quiet --disable-pip-version-check -c scripts/constraints.txt -e ".[mpi,test]" ||
    { echo "pip could not install the dependencies; see above" >&2; exit 1; }
  echo "$stamp" > .venv/installed
fi
