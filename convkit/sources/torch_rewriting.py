"""What torch's exporter rewrites by the rules of onnxscript, held to exact numbers."""

from __future__ import annotations

import functools


@functools.cache
def hold_rules_exact() -> None:
    """Let a sum with a small constant stand.

    onnxscript (to 0.7 at least) leaves out ``x + c`` where c is within 1e-8 of 0: what keeps a divisor from being 0 is
    gone, and the graph gives NaN. Its rules have no setting for that but the tolerance of their patterns.
    """
    from onnxscript.rewriter.rules.common import _no_op

    for rule in getattr(_no_op, "rules", ()):
        for node in getattr(rule, "_target_pattern", ()):
            for value in node.inputs:
                if hasattr(value, "_abs_tol"):
                    value._abs_tol = 0.0
