"""How MLflow's own experiment page is opened on our table: the experiment tags that describe a view, and the link that opens it.

Nothing here talks to a server: whoever publishes sets the tags. The format was read from the bundled page of MLflow 3.17.2; it is not
documented. Where another version does not understand a view, its page reports "Error loading shared view state" for some seconds and shows
the runs newest first. It ignores fields it does not know. No run, metric or artifact depends on any of this.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

VIEW_TAG = "mlflow.sharedViewState."
# said before the page can guess or ask: without it, it may open on the traces of a language model
KIND_TAG = {"mlflow.experimentKind": "custom_model_development"}
NOTE_TAG = "mlflow.note.content"
# the page puts the charts of all other metrics into a section of this name; ours is named first, so that it begins closed
REST = "Model metrics"


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
class View:
    """One way to look at an experiment's runs; `key` is its place in the link, `name` its entry in the page's menu of saved views.

    `group_by` is a tag, not the parent: the page nests children under parents only where it sorts by the time of creation. A group that
    lacks the metric sorted by would disturb the order of the others, so `only` has to keep such runs out.
    """

    key: str
    name: str
    columns: tuple[str, ...]
    sort: str = "attributes.start_time"
    only: str = ""
    group_by: str | None = None
    groups: tuple[str, ...] = ()
    curves: tuple[str, ...] = ()

    def state(self) -> Mapping[str, object]:
        """What the page is to show, in its own words."""
        grouped = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": self.group_by}]}
        return {
            "searchFilter": self.only,
            "orderByKey": self.sort,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": self.columns,
            "columnOrder": self.columns,
            "runsHiddenMode": "SHOW_ALL",
            "groupBy": grouped if self.group_by else None,
            # groups not named here begin open
            "groupsExpanded": {f"tag.{self.group_by}.{name}": False for name in self.groups},
            "useGroupedValuesInCharts": False,
        } | (self._charts() if self.curves else {})

    def _charts(self) -> Mapping[str, object]:
        section = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
        card = {"type": "LINE", "metricSectionId": "curves", "runsCountToCompare": 20, "deleted": False, "isGenerated": False}
        line = {"xAxisKey": "step", "yAxisKey": "metric", "scaleType": "linear", "xAxisScaleType": "linear", "range": {}}
        return {
            "compareRunCharts": [
                card | line | {"uuid": f"curve-{name}", "metricKey": name, "selectedMetricKeys": [name], "yAxisExpressions": []}
                for name in self.curves
            ],
            "compareRunSections": [
                section | {"uuid": "curves", "name": "Epoch by epoch"},
                section | {"uuid": "rest", "name": REST, "display": False},
            ],
            "isAccordionReordered": True,
        }


def view_tags(views: Iterable[View], written_ms: int) -> dict[str, str]:
    """The experiment tags to set; setting them again replaces the views of the same keys. Times are milliseconds since 1970."""
    tags = dict(KIND_TAG)
    for view in views:
        state = base64.b64encode(zlib.compress(json.dumps(view.state()).encode(), 9)).decode()
        tags[VIEW_TAG + view.key] = json.dumps({"name": view.name, "createdAt": written_ms, "state": f"deflate;{state}"})
    return tags


def link(base_url: str, experiment_id: str, view: View) -> str:
    """The page of `view`: its charts where it names curves, otherwise its table."""
    mode = "CHART" if view.curves else "TABLE"
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?viewStateShareKey={quote(view.key)}&compareRunsMode={mode}"
