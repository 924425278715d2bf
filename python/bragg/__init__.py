# SPDX-License-Identifier: Apache-2.0
"""Byzantine-robust aggregation: one update out of n, of which up to f may be anything at all.

>>> import bragg, numpy
>>> updates = numpy.ones((12, 4), numpy.float32)
>>> updates[3] = numpy.nan
>>> updates[8] = -1000
>>> bragg.aggregate(updates, "nnm(f=2) | trimmed_mean(f=2)")
array([1., 1., 1., 1.], dtype=float32)
"""

from . import attacks, rules
from ._aggregate import Plan, Result, aggregate, aggregate_with_report, pre_aggregate, pre_aggregate_with_report
from ._audit import Audit, audit
from ._bragg import Judgement, Trust, cuda_device_count
from ._bragg import version as __version__
from ._report import AggregationError, ParseError, Report
from ._reputation import Reputation
from .rules import *  # the classes are made of the table of rules

__all__ = [
    "AggregationError",
    "Audit",
    "Judgement",
    "ParseError",
    "Plan",
    "Report",
    "Reputation",
    "Result",
    "Trust",
    "__version__",
    "aggregate",
    "aggregate_with_report",
    "attacks",
    "audit",
    "cuda_device_count",
    "pre_aggregate",
    "pre_aggregate_with_report",
]
__all__ += rules.__all__
