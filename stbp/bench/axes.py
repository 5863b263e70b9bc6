"""The axes of `stbp bench --sweep` and the point that they cross."""

MAIN = {"T": 30, "batch": 100, "N": 800, "density": None, "rate": None}  # None: MNIST's own
AXES: dict[str, tuple[float, ...]] = {
    "T": (10.0, 30.0, 100.0),
    "batch": (1.0, 100.0, 500.0),
    "N": (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0),
    "density": (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
    "rate": (0.1, 0.3, 0.5, 0.7, 0.9),
}
# Of axes with synthetic input the share of inputs that fire: other ones in every class, or all of them at one rate.
# Near a rate of a half no coding makes events few.
SYNTHETIC = {"density": 0.5, "rate": 1.0}
