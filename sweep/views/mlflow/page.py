"""How MLflow's own experiment page is opened on our table: the experiment tags that describe a view, and the link that opens it.

Nothing here talks to a server: whoever publishes sets the tags. The format was read from the bundled page of MLflow 3.17.2; it is not
documented. A page that does not understand a view says "Error loading shared view state" for three seconds and goes to the experiment's
first page; of a view it understands, it leaves out what it does not know. No run, metric or artifact depends on any of this.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

VIEW_TAG = "mlflow.sharedViewState."
# 3.17 goes by the workflow type in the link; its code still has the older way, which goes by this tag
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
NOTE_TAG = "mlflow.note.content"
# the page puts the charts of all other metrics into a section of this name; ours is named first, so that it begins closed
REST = "Model metrics"
RUN_NAME = "attributes.`Run Name`"
# pixels: "0.034 (average)" and the name of a group must be legible; what is left of a window of 1500 holds the five metrics
WIDTHS = {RUN_NAME: 250, "runDateAndNestInfo": 90}
WIDTH = 125


def metric(name: str) -> str:
    """The column of a metric, and what to sort by it."""
    return f"metrics.`{name}`"


def param(name: str) -> str:
    """The column of a parameter."""
    return f"params.`{name}`"


def tag(name: str) -> str:
    """The column of a tag."""
    return f"tags.`{name}`"


@dataclass(frozen=True)
class Page:
    """One way to look at an experiment's runs; `key` is its place in the link, `name` its entry in the page's menu of saved views.

    `group_by` is a tag that parent and children share: by `mlflow.parentRunId` the page nests only where it sorts by the time of creation.
    A group shows the average of what its runs have, so a metric that only the parent has is shown as it is. `only` has to keep out runs
    without the tag and groups without the metric sorted by, which the page puts anywhere. `groups` are the tag's values, shown closed.

    The page fetches 100 runs at first: those that have the metric sorted by come first, and the children of some groups may be missing
    until "Load more" is pressed.
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
        """What the page is to show, in its own words."""
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
            # groups not named here begin open
            state["groupsExpanded"] = {f"tag.{self.group_by}.{name}": False for name in self.groups}
        return state | (self._charts() if self.curves else {})

    def _charts(self) -> dict[str, object]:
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
        # a card that says nothing of smoothing is drawn smoothed
        plain = {
            "lineSmoothness": 0,
            "useGlobalLineSmoothing": False,
            "useGlobalXaxisKey": False,
            "yAxisExpressions": [],
        }
        return {
            "compareRunCharts": [
                card
                | axes
                | plain
                | {"uuid": f"curve-{name}", "metricKey": name, "selectedMetricKeys": [name]}
                for name in self.curves
            ],
            "compareRunSections": [
                section | {"uuid": "curves", "name": "Epoch by epoch"},
                section | {"uuid": "rest", "name": REST, "display": False},
            ],
            "isAccordionReordered": True,
        }


def view_tags(pages: Iterable[Page], written_ms: int) -> dict[str, str]:
    """The experiment tags to set; setting them again replaces the views of the same keys. Times are milliseconds since 1970."""
    tags = dict(KIND_TAG)
    for page in pages:
        state = base64.b64encode(zlib.compress(json.dumps(page.state()).encode(), 9)).decode()
        tags[VIEW_TAG + page.key] = json.dumps(
            {"name": page.name, "createdAt": written_ms, "state": f"deflate;{state}"}
        )
    return tags


def link(base_url: str, experiment_id: str, page: Page) -> str:
    """The link to `page`: its charts where it names curves, otherwise its table."""
    # without a workflow type the page is that of language models, whatever the experiment's tags say
    asked = {
        "viewStateShareKey": page.key,
        "compareRunsMode": "CHART" if page.curves else "TABLE",
        "workflowType": "machine_learning",
    }
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{urlencode(asked)}"


GROUP = "shown_as"
"""The tag by which the page groups a parent with its seeds: the arm and its role."""


def gains_page(groups: Sequence[str] = (), ratios: Sequence[float] = ()) -> Page:
    """The experiment's page that is opened first: the confirmed candidates, the greatest gain on top, each with its seeds below."""
    first = ("gain", "p_holm", "gain_low", "gain_high", "pairs")
    second = tuple(f"{name}_at_r_{ratio:g}" for ratio in ratios for name in ("gain", "p_holm"))
    columns = tuple(metric(name) for name in (*first, *second, "score"))
    return Page(
        "gains",
        "Gains, best first",
        columns,
        metric("gain"),
        "tags.phase = 'confirm'",
        group_by=GROUP,
        groups=tuple(groups),
    )


SEARCH = Page(
    "search",
    "Search, best first",
    (metric("validation_score"), tag("seeds"), tag("arm"), tag("diverged"), tag("collapsed")),
    metric("validation_score"),
    "tags.kind = 'search'",
)


def curves_page(ratios: bool) -> Page:
    """The charts of the seed averages, with what the policies of the study move: keep ratios, or connections."""
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
