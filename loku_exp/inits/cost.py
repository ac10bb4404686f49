"""FLOPs of an init; a multiply-add counts as two."""

from collections.abc import Iterable

from loku_exp.inits.interface import Layer


def svd_flops(
    layers: Iterable[Layer], *, oversampling: int, power_iterations: int, exact: bool = False
) -> int:
    """Return the FLOPs of FILA's low-rank step.

    For weights (m, n), m >= n after transposing, q = min(rank + oversampling, n) and k iterations,
    ``torch.svd_lowrank`` costs::

        products   2 m n q (2 k + 2) + 2 m q^2
        QR         (k + 1) h(m) + k h(n),  h(s) = 4 s q^2 - 4 q^3 / 3 (Householder, with forming Q)
        small SVD  6 n q^2 + 20 q^3

    and the exact decomposition ``6 m n^2 + 20 n^3``. The SVD counts are Golub and Van Loan's for
    R-SVD with both thin factors (Matrix Computations, 8.6); LAPACK's iterate and differ somewhat.
    Weighting the rows and splitting the factors are left out.
    """
    total = 0.0
    for layer in layers:
        n, m = sorted(layer.weight.shape)
        if exact:
            total += 6 * m * n**2 + 20 * n**3
            continue
        q, k = min(layer.rank + oversampling, n), power_iterations
        products = 2 * m * n * q * (2 * k + 2) + 2 * m * q**2
        qr = 4 * q**2 * ((k + 1) * m + k * n) - (2 * k + 1) * 4 * q**3 / 3
        total += products + qr + 6 * n * q**2 + 20 * q**3
    return round(total)


def qr_flops(layers: Iterable[Layer]) -> int:
    """Return the FLOPs of a QR decomposition of each weight with its thin Q, by Householder's reflections.

    For weights (m, n) with k = min(m, n): ``2 k^2 (max(m, n) - k / 3)`` for R, and for Q the same where
    m >= n, else ``4 k^3 / 3`` (Golub and Van Loan, Matrix Computations, 5.2).
    """
    total = 0.0
    for layer in layers:
        m, n = layer.weight.shape
        k = min(m, n)
        of_r = 2 * k**2 * (max(m, n) - k / 3)
        total += of_r + (of_r if m >= n else 4 * k**3 / 3)
    return round(total)


def eigen_flops(size: int) -> int:
    """Return the FLOPs of all eigenvectors of a symmetric matrix: ``9 n^3`` (the same book, 8.3)."""
    return 9 * size**3


def solve_flops(size: int, columns: int) -> int:
    """Return the FLOPs of n equations with r right sides: ``2 n^3 / 3 + 2 n^2 r`` (the same book, 3.2)."""
    return round(2 * size**3 / 3) + 2 * size**2 * columns
