"""Saved views of MLflow's experiment page: the tags that hold them, and the links that open them.

Nothing here talks to a server. The format is not documented; it was read from the page of MLflow 3.17.2. A
page that does not understand a saved view says "Error loading shared view state" for three seconds, and goes
to the experiment's first page. A page that understands it ignores the parts that are unknown to it. No run,
metric or artifact depends on saved views.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

VIEW_TAG = "mlflow.sharedViewState."
# MLflow 3.17 reads the workflow type from the link, and older code in it reads this tag
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
NOTE_TAG = "mlflow.note.content"
# the page makes a section of this name for the charts of all other metrics; a view that has it can close it
REST = "Model metrics"
RUN_NAME = "attributes.`Run Name`"
# in pixels: the name of a group and "0.034 (average)" must be legible, and 1500 must hold five metrics
WIDTHS = {RUN_NAME: 250, "runDateAndNestInfo": 90}
WIDTH = 125


def metric(name: str) -> str:
    """The column of a metric. It is also the key to sort by."""
    return f"metrics.`{name}`"


def param(name: str) -> str:
    """The column of a parameter."""
    return f"params.`{name}`"


def tag(name: str) -> str:
    """The column of a tag."""
    return f"tags.`{name}`"


@dataclass(frozen=True)
class Page:
    """A saved view of an experiment's runs. The link has its `key`, and the menu of saved views its `name`.

    `group_by` is a tag that a parent shares with its children. (Nesting by `mlflow.parentRunId` works only
    where the page sorts by the time of creation.) A group shows the average over its runs that have a
    metric, so a metric of the parent alone is shown as it is. `groups` are the values of the tag; their
    groups begin closed. `only` is the filter. It has to leave out runs without the tag, and groups without
    the metric to sort by, because the page puts these anywhere.

    The page fetches 100 runs at first, those with the metric to sort by before the others. The children of
    some groups may be missing until "Load more" is pressed.
    """

    key: str
    name: str
    columns: tuple[str, ...]
    sort: str = "attributes.start_time"
    only: str = ""
    group_by: str | None = None
    groups: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()

    def state(self) -> dict[str, object]:
        """The saved view in MLflow's format."""
        widths = WIDTHS | dict.fromkeys(self.columns, WIDTH)
        state: dict[str, object] = {
            "searchFilter": self.only,
            "orderByKey": self.sort,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": self.columns,
            "columnOrder": list(widths),
            "columnWidths": widths,
            "runsHiddenMode": "SHOW_ALL",
            "useGroupedValuesInCharts": False,
        }
        if self.group_by:
            state["groupBy"] = {
                "aggregateFunction": "average",
                "groupByKeys": [{"mode": "tag", "groupByData": self.group_by}],
            }
            # groups that are not named here begin open
            state["groupsExpanded"] = {f"tag.{self.group_by}.{name}": False for name in self.groups}
        return state | (self._charts() if self.curves else {})

    def _charts(self) -> dict[str, object]:
        """One chart for each curve, in MLflow's format."""
        section = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        card = {
            "type": "LINE",
            "metricSectionId": "curves",
            "displayPoints": False,
            "deleted": False,
            "isGenerated": False,
        }
        axes = {
            "xAxisKey": "step",
            "yAxisKey": "metric",
            "scaleType": "linear",
            "xAxisScaleType": "linear",
            "range": {},
        }
        # a chart without these keys is drawn smoothed
        plain = {
            "lineSmoothness": 0,
            "useGlobalLineSmoothing": False,
            "useGlobalXaxisKey": False,
            "yAxisExpressions": [],
        }
        return {
            "compareRunCharts": [
                {
                    **card,
                    **axes,
                    **plain,
                    "uuid": f"curve-{name}",
                    "metricKey": name,
                    "selectedMetricKeys": [name],
                }
                for name in self.curves
            ],
            "compareRunSections": [
                section | {"uuid": "curves", "name": "Epoch by epoch"},
                section | {"uuid": "rest", "name": REST, "display": False},
            ],
            "isAccordionReordered": True,
        }


def view_tags(pages: Iterable[Page], written_ms: int) -> dict[str, str]:
    """The experiment's tags that hold saved views. Setting them again replaces the views of the same keys.

    `written_ms` is the time to show beside them, in milliseconds since 1970.
    """
    tags = dict(KIND_TAG)
    for page in pages:
        state = base64.b64encode(zlib.compress(json.dumps(page.state()).encode(), 9)).decode()
        tags[VIEW_TAG + page.key] = json.dumps(
            {"name": page.name, "createdAt": written_ms, "state": f"deflate;{state}"}
        )
    return tags


def link(base_url: str, experiment_id: str, page: Page) -> str:
    """The link to `page`: to its charts where it has curves, otherwise to its table."""
    # without a workflow type MLflow opens its page for language models, whatever the experiment's tags say
    query = {
        "viewStateShareKey": page.key,
        "compareRunsMode": "CHART" if page.curves else "TABLE",
        "workflowType": "machine_learning",
    }
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{urlencode(query)}"


GROUP = "shown_as"
"""The tag by which the page groups a parent with its seeds. Its value is the arm and its role."""


def gains_page(groups: Sequence[str] = (), ratios: Sequence[float] = ()) -> Page:
    """The view that is opened first: the confirmed candidates by gain, each with its seeds below."""
    first = ("gain", "p_holm", "gain_low", "gain_high", "pairs", "better")
    second = tuple(f"{name}_at_r_{ratio:g}" for ratio in ratios for name in ("gain", "p_holm"))
    columns = tuple(metric(name) for name in (*first, *second, "score"))
    return Page(
        "gains",
        "Gains in points, best first",
        columns,
        metric("gain"),
        "tags.phase = 'confirm'",
        group_by=GROUP,
        groups=tuple(groups),
    )


def search_page(kind: str = "search", ratios: Sequence[float] = ()) -> Page:
    """The candidates by validation accuracy. `ratios` are the other endpoints that the search scores.

    `kind` is the kind of run that a candidate is: a parent, or a single run where the ladder has one seed.
    """
    scores = tuple(f"validation_score_at_r_{ratio:g}" for ratio in ratios)
    tags = ("seeds", "arm", "diverged", "collapsed") if kind == "search" else ("arm", "search", "outcome")
    return Page(
        "search",
        "Search, best first",
        (*(metric(name) for name in ("validation_score", *scores)), *map(tag, tags)),
        metric("validation_score"),
        f"tags.phase = 'search' and tags.kind = '{kind}'",
    )


SEARCH = search_page()


def curves_page(ratios: bool) -> Page:
    """The charts of the seed averages. `ratios` says whether they show keep ratios or connections."""
    moved = ("keep_ratio", "nonzero_rate") if ratios else ("connections", "active_neurons")
    curves = ("test_accuracy", "dense_test_accuracy", *moved, "dense_test_accuracy_gain", "train_loss")
    return Page(
        "curves",
        "Curves of the seed averages",
        (metric("gain"),),
        metric("gain"),
        "tags.kind = 'confirm'",
        curves=curves,
    )
