"""Run the lecture's experiments and write their numbers and pictures into docs/theory.md and docs/theory/.

usage: python scripts/write_theory_page.py [--full] [--seed N] [NAME ...]

Names are those of `dplite theory list`; all of them when left out, and others keep the rows they have. What stands
outside of the table of docs/theory.md is left as it is.
"""

import argparse
import re
import time
from importlib import import_module
from pathlib import Path

from deepmd_lite.evaluate.experiments import EXPERIMENTS, choose, run

PAGE = Path(__file__).parents[1] / "docs" / "theory.md"
BEGIN, END = "<!-- measured: written by scripts/write_theory_page.py -->", "<!-- end -->"
HEADER = (
    "| | the lecture says | in `deepmd_lite.theory` | measured | predicted | must be | checks | s |\n"
    "| --- | --- | --- | --: | --: | --: | --: | --: |"
)
FUNCTIONS = {
    "F1": "risk.learn",
    "F2": "classifier.RandomFeatureClassifier",
    "A1": "interpolation.KuhnInterpolant",
    "A2": "integration.grid_quadrature integration.monte_carlo",
    "A3": "fourier.fourier_grid fourier.RandomFourier",
    "A4": "interpolation.KuhnInterpolant complexity.rademacher_lipschitz",
    "A5": "integration.hoeffding_bound",
    "B1": "random_features.RandomFeatureRegressor",
    "B2": "kernels.ArcCosine kernels.feature_kernel",
    "B3": "kernels.rkhs_norm random_features.representation_norm",
    "B4": "random_features.approximation_curve",
    "B5": "random_features.coefficient_growth",
    "B6": "networks.TwoLayerNet",
    "B7": "barron.EuclideanNorm",
    "B8": "spectral.spectral_barron_norm spectral.fourier_barron_network",
    "B9": "radial.radon_norm_radial",
    "B10": "radial.min_path_norm_fit",
    "B11": "norms.path_norm",
    "B12": "barron.BarronNetwork random_features.approximation_curve",
    "B13": "networks.ResNetFlow norms.weighted_path_norm",
    "B14": "networks.MLP norms.path_norm_of_layers",
    "E1": "decomposition.error_decomposition",
    "E2": "interpolation.PolynomialInterpolant",
    "E3": "risk.generalization_gap",
    "E4": "complexity.rademacher_erm",
    "E5": "complexity.rademacher_lipschitz",
    "E6": "complexity.rademacher_rkhs",
    "E7": "barron_complexity.rademacher_barron",
    "E8": "bounds.generalization_bound",
    "E9": "barron_regressor.BarronRegressor",
    "E10": "double_descent.double_descent_curve",
    "T1": "descent.gradient_descent descent.stochastic_gradient_descent",
    "T2": "descent.gradient_variance",
    "T3": "descent.CosineClass",
    "T4": "tangent.gram_matrix",
    "T5": "tangent.ntk_comparison",
    "T6": "tangent.timescale_ratio",
    "T7": "tangent.empirical_ntk tangent.LinearizedPredictor",
    "T8": "mean_field.ParticleFlow",
    "T9": "mean_field.midpoint_convexity_test",
    "T10": "mean_field.ParticleFlow",
}


def functions(key):
    """Links in Markdown to what an experiment tests; fails where there is no such thing."""
    links = []
    for name in FUNCTIONS[key].split():
        module, attribute = name.split(".")
        getattr(import_module(f"deepmd_lite.theory.{module}"), attribute)
        links.append(f"[`{name}`](../deepmd_lite/theory/{module}.py)")
    return " ".join(links)


def row(finding):
    """The line of an experiment: its first check stands for all."""
    e, checks = finding.experiment, finding.outcome.checks
    first, passed = checks[0], sum(c.passed for c in checks)
    predicted = "" if first.predicted is None else f"{first.predicted:.4g}"
    cells = [
        f"{e.id} [{e.name}](theory/{e.name}.png)",
        e.statement,
        functions(e.id),
        f"{first.quantity}: {first.measured:.4g}",
        predicted,
        first.criterion,
        f"{passed} of {len(checks)}",
        f"{finding.seconds:.1f}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    rows = {m[1]: m[0] for m in re.finditer(r"^\| (\w+) \[.*$", table, re.MULTILINE)}
    begin = time.perf_counter()
    for experiment in choose(options.names) if options.names else EXPERIMENTS:
        finding = run(experiment, options.full, options.seed)
        rows[experiment.id] = row(finding)
        finding.draw(PAGE.parent / "theory", dpi=90)
        print(
            f"{'pass' if finding.passed else 'FAIL'}  {experiment.name}  {finding.seconds:.1f} s", flush=True
        )
    body = "\n".join(rows[e.id] for e in EXPERIMENTS if e.id in rows)
    PAGE.write_text(f"{before}{BEGIN}\n{HEADER}\n{body}\n{END}{after}", encoding="utf-8")
    print(f"wrote {PAGE} in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
