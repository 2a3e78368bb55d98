# Every chart of a report, in the order in which it is read.
from __future__ import annotations

from controlplane.reports.charts.chart import Absent, Chart
from controlplane.reports.charts.curves import latency_throughput, ranking
from controlplane.reports.charts.heat import heat_map
from controlplane.reports.charts.percentiles import percentile_plot
from controlplane.reports.charts.server import batch_sizes, shares
from controlplane.reports.charts.trade_offs import pareto
from controlplane.reports.standings import Findings


def charts(findings: Findings) -> tuple[Chart | Absent, ...]:
    drawn = (ranking, pareto, latency_throughput, percentile_plot, shares, batch_sizes, heat_map)
    return tuple(draw(findings) for draw in drawn)
