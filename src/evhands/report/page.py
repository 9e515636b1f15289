"""The report of an evaluation, and the comparison of several, as single HTML pages with style and script inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from evhands.hand.skeleton import OPENPOSE21_BONES
from evhands.report.charts import Line, hand_chart, line_chart
from evhands.scoring import TOLD, UNITS

_ASSETS = Path(__file__).parents[1] / "assets"
MAIN = {
    "evhands": ("mpjpe21", "pa_mpjpe21", "mpjpe20", "pa_mpjpe20", "camera_error", "depth_error", "px21", "found"),
    "evhandpose": ("mpjpe21", "pa_mpjpe21", "mpjpe20", "pa_mpjpe20", "mpvpe", "published_px21", "published_palm21"),
}
"""Columns of the table; all figures stand below it."""
SHORT = {
    "mpjpe21": "MPJPE", "pa_mpjpe21": "PA-MPJPE", "mpjpe20": "MPJPE/20", "pa_mpjpe20": "PA-MPJPE/20",
    "mpvpe": "MPVPE", "pa_mpvpe": "PA-MPVPE", "camera_error": "camera space", "depth_error": "depth",
    "px21": "2D-MPJPE", "px20": "2D-MPJPE/20", "palm20": "2D, palms", "published_px21": "2D, as published",
    "published_palm21": "palms, as published", "acceleration_error": "acceleration error",
    "jitter": "jitter", "true_jitter": "jitter of the truth", "found": "hand found",
    "constant_mpjpe21": "constant pose, MPJPE", "constant_pa_mpjpe21": "constant pose, PA-MPJPE",
}  # fmt: skip
PUBLISHED = (
    ("EvHandPose", {"mpjpe21": 19.82, "pa_mpjpe21": 10.19}),
    ("EvHandPose without hand flow", {"mpjpe21": 25.19}),
    ("EventHands, retrained", {"mpjpe21": 38.51, "pa_mpjpe21": 14.18}),
)
"""Printed for EvRealHands, normal scenes (Jiang et al., TPAMI 2024): they compare with that data and protocol alone."""


def report_page(content: dict[str, Any], figures: dict[str, list[str]], player: list[dict[str, Any]]) -> str:
    """The whole page. figures: HTML of the pictures by group (best, median, worst); player: `pictures.player_data`."""
    title = f"{content['method']} &middot; protocol {content['protocol']} &middot; crop {content['crop']}"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{content["scored"]} scored poses of {content["recordings"]} recordings; subjects '
        f"{escape(_few(content['subjects']))}; {escape(content['intervals'])}.</p>",
        _tiles(content),
        "<h2>Figures</h2>",
        _table(content),
        _curves(content),
        "<h2>By joint</h2>",
        f'<div class="row">{_hand(content, "rooted", "wrists laid on each other")}'
        f"{_hand(content, 'pa', 'after the best similarity transform')}</div>",
    ]
    if any(figures.values()):
        parts += ["<h2>Frames</h2>", '<p class="legend"><span class="key truth">truth</span>'
                  '<span class="key said">prediction</span></p>']  # fmt: skip
        parts += [f'<h3>{name}</h3><div class="row frames">{"".join(of)}</div>' for name, of in figures.items() if of]
    if player:
        parts.append(_player(player))
    parts += ["<h2>All figures</h2>", _all_figures(content), "<h2>By subject</h2>", _subjects(content)]
    parts += ["<h2>Where this comes from</h2>", _provenance(content)]
    return page(f"{content['method']}, {content['protocol']}", "\n".join(parts), player)


def page(title: str, body: str, player: list[dict[str, Any]] | None = None) -> str:
    """A page with our style, and our script where there is something to play."""
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = ""
    if player:
        data = json.dumps({"bones": OPENPOSE21_BONES, "recordings": player}).replace("</", "<\\/")
        script = f'<script id="data" type="application/json">{data}</script>\n<script>'
        script += (_ASSETS / "report.js").read_text(encoding="utf-8") + "</script>"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head>\n'
        f"<body><main>{body}</main>\n{script}</body></html>\n"
    )


def _few(groups: dict[str, Any]) -> str:
    names = list(groups)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _tiles(content: dict[str, Any]) -> str:
    every = content["figures"]["all"]
    tiles = []
    pixels = "published_px21" if content["protocol"] == "evhandpose" else "px21"
    for name in ("mpjpe21", "pa_mpjpe21", pixels, "found"):
        if name in every:
            tiles.append((SHORT[name], cell(every[name], name, plain=True), _unit(name)))
    if content["pck"]["auc"] is not None:
        tiles.insert(2, ("AUC of 3D-PCK", f"{content['pck']['auc']:.3f}", ""))
    return '<div class="tiles">' + "".join(
        f'<div class="tile"><b>{value}<small> {unit}</small></b><span>{escape(name)}</span></div>'
        for name, value, unit in tiles
    ) + "</div>"  # fmt: skip


def _unit(name: str) -> str:
    unit = {"share": "%", "m/s2": "m/s&sup2;"}.get(UNITS[name], UNITS[name])
    return "palm lengths" if unit == "palms" else unit


def cell(figure: dict[str, Any] | None, name: str, *, plain: bool = False, unit: str = "") -> str:
    """A mean, with its unit if given and its interval unless `plain`; shares in per cent."""
    if figure is None:
        return "&ndash;"
    factor = 100 if UNITS[name] == "share" else 1
    digits = 3 if UNITS[name] == "palms" else 1 if factor == 100 or abs(figure["mean"]) >= 100 else 2
    text = f"{factor * figure['mean']:.{digits}f} {unit}".rstrip()
    if plain or figure["low"] is None or figure["low"] == figure["high"]:
        return text
    low, high = (f"{factor * figure[end]:.{max(digits - 1, 1)}f}" for end in ("low", "high"))
    return f"{text} <small>{low} to {high}</small>"


def _table(content: dict[str, Any]) -> str:
    names = [n for n in MAIN[content["protocol"]] if any(n in row for row in content["figures"].values())]
    heads = "".join(f"<th>{escape(SHORT[name])}<small>{_unit(name)}</small></th>" for name in names)
    rows = []
    for bucket, row in content["figures"].items():
        count = max((figure["rows"] for figure in row.values()), default=0)
        cells = "".join(f"<td>{cell(row.get(name), name)}</td>" for name in names)
        rows.append(f"<tr><th>{escape(bucket.replace('_', ' '))}</th><td>{count}</td>{cells}</tr>")
    rows += [_reference("best constant pose", _constant(content), names)]
    note = "/20: without the root. A hand that is not found scores the constant pose. Small figures: 95 % interval."
    if content["protocol"] == "evhandpose":
        rows += [_reference(f"published: {name}", values, names) for name, values in PUBLISHED]
        note += " Published figures are of EvRealHands, normal scenes, and compare with that data only."
    return (
        f'<div class="scroll"><table id="figures"><thead><tr><th></th><th>poses</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><p class=note>{note}</p>"
    )


def _constant(content: dict[str, Any]) -> dict[str, float]:
    every = content["figures"]["all"]
    pairs = (("mpjpe21", "constant_mpjpe21"), ("pa_mpjpe21", "constant_pa_mpjpe21"))
    return {name: every[own]["mean"] for name, own in pairs if own in every}


def _reference(name: str, values: dict[str, float], names: Sequence[str]) -> str:
    cells = "".join(f"<td>{values[n]:.2f}</td>" if n in values else "<td>&ndash;</td>" for n in names)
    return f'<tr class="reference"><th>{escape(name)}</th><td></td>{cells}</tr>'


def _curves(content: dict[str, Any]) -> str:
    pck = content["pck"]
    charts = []
    if pck["auc"] is not None:
        auc = f"wrists laid on each other, AUC {pck['auc']:.3f}", f"similarity transform, AUC {pck['pa_auc']:.3f}"
        lines = [
            Line(name=name, x=pck["mm"], y=[100 * v for v in pck[key]], kind=kind)
            for name, key, kind in zip(auc, ("rooted", "pa"), ("first", "second"))
        ]
        charts.append(("3D-PCK", line_chart(lines, "threshold, mm", "joints within, %", top=100)))
    for name, x_title in (
        ("speed", "speed of the joints from, m/s"),
        ("rate", "events a second from"),
        ("time", "time from, s"),
    ):
        charts.append((f"Error over {name if name != 'rate' else 'event rate'}", _over(content["over"][name], x_title)))
    cards = "".join(f'<div class="card"><h3>{name}</h3>{chart}</div>' for name, chart in charts)
    return f'<h2>Curves</h2><div class="row">{cards}</div>'


_OVER = (
    ("speed", "speed", "speed of the joints from, m/s"),
    ("rate", "event rate", "events a second from"),
    ("time", "time", "time from, s"),
)


def _over(bins: list[dict[str, Any]], x_title: str) -> str:
    named = [_brief(row["from"]) for row in bins]
    spatial = any(row["mpjpe21"] is not None for row in bins)
    keys = [("px21", "2D-MPJPE", "first")]
    if spatial:
        keys = [("mpjpe21", "MPJPE", "first"), ("pa_mpjpe21", "PA-MPJPE", "second")]
        keys += [("constant_mpjpe21", "best constant pose", "third")]
    x = list(range(len(bins)))
    lines = [Line(name=n, x=x, y=[row[key] for row in bins], kind=kind, dots=True) for key, n, kind in keys]
    names = named if len(named) <= 8 else [name if i % 2 == 0 else "" for i, name in enumerate(named)]
    return line_chart(lines, x_title, "error, mm" if spatial else "error, px", x_names=names)


def _brief(value: float) -> str:
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:.2g}" if value < 1 else f"{value:.3g}"


def _hand(content: dict[str, Any], key: str, told: str) -> str:
    return f'<div class="card"><h3>Error in mm, {told}</h3>{hand_chart(content["joints_mm"][key])}</div>'


def _player(player: list[dict[str, Any]]) -> str:
    options = "".join(f'<option value="{i}">{escape(r["name"])}</option>' for i, r in enumerate(player))
    return f"""<h2>Player</h2>
<div id="player"><svg id="screen" class="frame"><image id="picture"/><path id="truth" class="skeleton truth"/>
<path id="said" class="skeleton said"/></svg>
<div class="controls"><button id="play" type="button">Play</button><input id="place" type="range" min="0" value="0">
<select id="which" aria-label="recording">{options}</select>
<label><input id="show-truth" type="checkbox" checked> truth</label>
<label><input id="show-said" type="checkbox" checked> prediction</label><output id="told"></output></div>
<svg id="strip" class="strip" viewBox="0 0 600 60" preserveAspectRatio="none"><path id="errors"/>
<path id="cursor"/></svg>
</div>"""


def _all_figures(content: dict[str, Any]) -> str:
    every = content["figures"]["all"]
    rows = "".join(
        f"<tr><th>{escape(SHORT[name])}</th><td>{cell(figure, name, unit=_unit(name))}</td><td>{figure['rows']}</td>"
        f'<td class="text">{escape(TOLD[name])}</td></tr>'
        for name, figure in every.items()
    )
    head = "<tr><th></th><th>all recordings</th><th>poses</th><th class=text>what it is</th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _subjects(content: dict[str, Any]) -> str:
    names = [n for n in ("mpjpe21", "pa_mpjpe21", "px21", "found") if n in content["figures"]["all"]]
    heads = "".join(f"<th>{escape(SHORT[n])}<small>{_unit(n)}</small></th>" for n in names)
    rows = "".join(
        f"<tr><th>{escape(subject)}</th>" + "".join(f"<td>{cell(row.get(n), n)}</td>" for n in names) + "</tr>"
        for subject, row in content["subjects"].items()
    )
    head = f"<tr><th class=text>subject</th>{heads}</tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _provenance(content: dict[str, Any]) -> str:
    facts = {
        "weights (SHA-256)": content.get("weights", ""), "data": content.get("data", ""),
        "code": content.get("code", ""), "hand model": content.get("hand_model", ""),
        "predicting took": f"{content['seconds']:.1f} s for {content['rows']} poses",
        "machine": (content.get("environment") or {}).get("processor", ""),
    }  # fmt: skip
    rows = "".join(
        f"<tr><th>{escape(k)}</th><td class=text><code>{escape(str(v))}</code></td></tr>" for k, v in facts.items()
    )
    return f"<table><tbody>{rows}</tbody></table>"
