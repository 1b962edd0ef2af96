"""Products in float32 for processors without bfloat16, in a new process."""

import subprocess
import sys

from tests.helpers.paths import ROOT

PROGRAM = """
import torch
from mmtpp.model.cpu_bfloat16 import use_float32_products

torch.manual_seed(0)
torch.set_num_threads(1)
left, right, added = torch.randn(64, 512), torch.randn(512, 1024), torch.randn(1024)
batch = torch.randn(3, 64, 512)
before = [torch.mm(left, right), torch.mm(left.double(), right.double())]
use_float32_products()
use_float32_products()
after = [torch.mm(left, right), torch.mm(left.double(), right.double())]
assert all(map(torch.equal, before, after)), "other types changed"
assert all(one.dtype == two.dtype for one, two in zip(before, after))
l16, r16, a16, b16 = (tensor.bfloat16() for tensor in (left, right, added, batch))
exact = l16.double() @ r16.double()
for actual, expected in (
    (l16 @ r16, exact),
    (torch.nn.functional.linear(l16, r16.T.contiguous(), a16), exact + a16.double()),
    (torch.addmm(a16, l16, r16, beta=2, alpha=3), 2 * a16.double() + 3 * exact),
    (b16 @ r16.expand(3, -1, -1), b16.double() @ r16.double()),
):
    assert actual.dtype == torch.bfloat16
    # the tolerance of one rounding to 8 bits
    torch.testing.assert_close(actual.double(), expected, rtol=2**-8, atol=1e-4)
r16.requires_grad_()
(l16 @ r16).sum().backward()
wide = left.bfloat16().float()
expected = wide.sum(0)[:, None].expand(-1, 1024)
torch.testing.assert_close(r16.grad.float(), expected, rtol=2**-8, atol=1e-4)
"""


def test_products_are_those_of_float32_rounded_once():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
