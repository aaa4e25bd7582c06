"""Units: the only place where they convert.

Inside the package: Å, eV, eV/Å, amu, fs, K, bar. Constants are CODATA 2018, the values ASE >= 3.23 calls
``create_units("2018")`` where the two overlap.
"""

HARTREE = 27.211386245988  # eV
BOHR = 0.529177210903  # Å
RYDBERG = HARTREE / 2  # eV
KCAL_PER_MOL = 0.043364104241800934  # eV
KJ_PER_MOL = KCAL_PER_MOL / 4.184  # eV
BOLTZMANN = 8.617333262e-5  # eV/K
BAR = 1 / 1602176.634  # eV/Å³; 1 eV/Å³ = 1602176.634 bar
GPA = 1e4 * BAR  # eV/Å³
ACCELERATION = (
    1.602176634e-19 / 1.66053906660e-27 * 1e-10
)  # Å/fs² of 1 eV/Å on 1 amu; eV = amu (Å/fs)² / this
