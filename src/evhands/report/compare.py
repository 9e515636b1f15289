"""Results of several methods in one table: for a terminal, as Markdown, as a page."""

from __future__ import annotations

from html import escape
from typing import Any

from evhands.report.charts import Line, line_chart
from evhands.report.page import MAIN, SHORT, cell, page
from evhands.scoring import UNITS

_KINDS = ("first", "second", "third")


def comparison_text(read: list[dict[str, Any]]) -> str:
    """Aligned columns."""
    rows = _cells(read)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(v.ljust(w) if i < 2 else v.rjust(w) for i, (v, w) in enumerate(zip(row, widths))) for row in rows
    ]
    return "\n".join([_about(read[0]), *(line.rstrip() for line in lines)])


def comparison_markdown(read: list[dict[str, Any]]) -> str:
    """A table of GitHub's Markdown."""
    head, *rows = _cells(read)
    rule = ["---", "---", *("---:" for _ in head[2:])]
    return _about(read[0]) + "\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def comparison_page(read: list[dict[str, Any]]) -> str:
    """The same as a page, with PCK curves of the first three."""
    names = _names(read)
    heads = "".join(f"<th>{escape(SHORT[name])}<small>{UNITS[name]}</small></th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(one['method'])}</th><td>{one['crop']}</td>"
        + "".join(f"<td>{cell(one['figures']['all'].get(name), name)}</td>" for name in names)
        + f"<td>{_auc(one)}</td></tr>"
        for one in read
    )
    head = f"<tr><th></th><th>crop</th>{heads}<th>AUC</th></tr>"
    lines = [
        Line(name=f"{one['method']}, crop {one['crop']}", x=one["pck"]["mm"], y=_percent(one), kind=kind)
        for one, kind in zip(read, _KINDS)
    ]
    body = (
        f"<h1>Comparison</h1><p class=lead>{escape(_about(read[0]))}</p>"
        f'<div class="scroll"><table id="figures"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        f'<h2>3D-PCK</h2><div class="card">{line_chart(lines, "threshold, mm", "joints within, %", top=100)}</div>'
    )
    return page("Comparison", body)


def _about(one: dict[str, Any]) -> str:
    return (
        f"Protocol {one['protocol']}: {one['scored']} poses of {one['recordings']} recordings, data {one['data']}; "
        f"intervals: {one['intervals']}"
    )


def _names(read: list[dict[str, Any]]) -> list[str]:
    return [n for n in MAIN[read[0]["protocol"]] if any(n in one["figures"]["all"] for one in read)]


def _cells(read: list[dict[str, Any]]) -> list[list[str]]:
    names = _names(read)
    rows = [["method", "crop", *(f"{SHORT[name]} ({UNITS[name]})" for name in names), "AUC"]]
    for one in read:
        figures = [_plain(one["figures"]["all"].get(name), name) for name in names]
        rows.append([str(one["method"]), str(one["crop"]), *figures, _auc(one)])
    return rows


def _plain(figure: dict[str, Any] | None, name: str) -> str:
    if figure is None:
        return "-"
    text = f"{figure['mean']:.3f}" if UNITS[name] in ("share", "palms") else f"{figure['mean']:.2f}"
    return text if figure["low"] is None else f"{text} [{figure['low']:.3g}, {figure['high']:.3g}]"


def _auc(one: dict[str, Any]) -> str:
    auc = one["pck"]["auc"]
    return "-" if auc is None else f"{auc:.3f}"


def _percent(one: dict[str, Any]) -> list[float | None]:
    return [None if value is None else 100 * value for value in one["pck"]["rooted"]]
