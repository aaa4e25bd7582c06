"""Who may import whom: each part of the package only what stands before it in LAYERS, whatever a function does."""

import ast
from pathlib import Path

import deepmd_lite

ROOT = Path(deepmd_lite.__file__).parent
LAYERS = [  # parts in one line do not know of each other
    {"errors", "units", "strict_json", "jit", "signals", "workers"},
    {"config", "hdf5_guard", "box", "activations", "launch", "theory"},
    {"neighbors", "model_file", "contract"},
    {"frames", "model", "engine"},
    {"train", "backends"},
    {"calculator"},
    {"md"},
    {"evaluate"},
    {"cli"},
]
HEAVY = {
    "theory": {"ase", "h5py", "mpi4py", "numba"},
    "engine": {"torch", "mpi4py"},
    "md": {"torch"},
    "model_file": {"torch"},
    "frames": {"torch", "mpi4py"},
}


def imports(path):
    """Modules that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "deepmd_lite":
                yield from (f"deepmd_lite.{alias.name}" for alias in node.names)


def part(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_layers():
    level = {name: k for k, names in enumerate(LAYERS) for name in names}
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        mine = part(path)
        if mine.startswith("__"):
            continue
        for module in imports(path):
            names = module.split(".")
            if names[0] in HEAVY.get(mine, ()):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
            if names[0] == "deepmd_lite" and len(names) > 1 and names[1] in level and names[1] != mine:
                if level[names[1]] >= level[mine]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)
    assert {part(p) for p in ROOT.rglob("*.py")} - set(level) == {"__init__", "__main__"}
