"""A self-contained HTML page: one file, no scripts, nothing fetched from anywhere."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STYLE = """
:root { color-scheme: light dark; --ink:#1d2024; --soft:#626973; --line:#d9dce1; --paper:#fbfbfa;
  --card:#fff; --shade:#0003; --good:#1f7a4d; --bad:#b3372f; --c0:#5b6470; --c1:#2f6fb2;
  --c2:#c9822b; --c3:#3f8f6b; --c4:#8a5aa8; --c5:#b4505f; --c6:#7c7a2c; --c7:#3d8b99;
  --c8:#9aa0a8; }
@media (prefers-color-scheme: dark) { :root { --ink:#e4e6e9; --soft:#979da6; --line:#343a42;
  --paper:#15181b; --card:#1c2024; --shade:#0009; --good:#5cc08c; --bad:#ea8079; --c0:#a3abb6;
  --c1:#69a5e3; --c2:#e2a65a; --c3:#6fbf9a; --c4:#bb90d6; --c5:#df8390; --c6:#bab75e; --c7:#72bcc9;
  --c8:#6b727b; } }
* { box-sizing: border-box }
body { margin:0 auto; max-width:1320px; padding:2.2rem 1.4rem 4rem; background:var(--paper);
  color:var(--ink); font:15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
h1 { font-size:1.55rem; margin:0 0 .2rem; letter-spacing:-.01em }
h2 { font-size:1.08rem; margin:2.6rem 0 .5rem }
p, li { max-width:72ch } .soft, figcaption { color:var(--soft); font-size:.86rem }
.note { border-left:3px solid var(--c2); padding:.3rem .9rem; background:var(--card) }
.scroll { overflow-x:auto; background:linear-gradient(to right, var(--paper) 30%, transparent) left,
  linear-gradient(to left, var(--paper) 30%, transparent) right,
  radial-gradient(farthest-side at 0 50%, var(--shade), transparent) left,
  radial-gradient(farthest-side at 100% 50%, var(--shade), transparent) right;
  background-repeat:no-repeat; background-size:44px 100%, 44px 100%, 14px 100%, 14px 100%;
  background-attachment:local, local, scroll, scroll }
table { border-collapse:collapse; font-size:.9rem; font-variant-numeric:tabular-nums }
th, td { padding:.32rem .75rem .32rem 0; text-align:right; white-space:nowrap;
  border-bottom:1px solid var(--line) }
th { font-weight:600; font-size:.82rem; color:var(--soft); vertical-align:bottom }
th:first-child, td:first-child { text-align:left } td small { color:var(--soft) }
.good { color:var(--good) } .bad { color:var(--bad) }
svg { display:block; max-width:100%; height:auto; font:12px system-ui, sans-serif }
svg text { fill:var(--ink) } svg .soft { fill:var(--soft); font-size:11px }
.row { display:flex; gap:.7rem; flex-wrap:wrap; margin:.4rem 0 1.2rem } figure { margin:0 }
figure img, figure video { display:block; max-width:100%; border-radius:4px }
dl { display:grid; grid-template-columns:max-content 1fr; gap:.15rem 1.4rem; margin:.4rem 0 }
dt { color:var(--soft) } dd { margin:0; overflow-wrap:anywhere }
@media print { :root { color-scheme:light; --ink:#1d2024; --soft:#4a5058; --line:#b9bec6;
  --paper:#fff; --card:#fff; --good:#1f7a4d; --bad:#b3372f; --c0:#5b6470; --c1:#2f6fb2;
  --c2:#c9822b; --c3:#3f8f6b; --c4:#8a5aa8; --c5:#b4505f; --c6:#7c7a2c; --c7:#3d8b99;
  --c8:#9aa0a8 }
  * { print-color-adjust:exact; -webkit-print-color-adjust:exact }
  body { max-width:none; padding:0 }
  .scroll { overflow:visible; background:none } table { font-size:.66rem }
  th, td { white-space:normal; padding-right:.4rem } svg, figure, tr { break-inside:avoid }
  h2 { break-after:avoid } }
@media (max-width: 700px) { body { padding:1.2rem .9rem 3rem } svg { min-width:620px }
  dl { grid-template-columns:1fr } dd { margin:0 0 .4rem } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document from its parts."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading and what belongs under it; nothing at all when nothing belongs there."""
    content = "\n".join(part for part in parts if part)
    return f"<section><h2>{escape(heading)}</h2>\n{content}</section>" if content else ""


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, optionally of a style class."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table. Heads and the caption are plain text, cells are HTML."""
    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{lines}\n</tbody></table></div>" + paragraph(caption, "soft")
    )


def facts(values: Mapping[str, object]) -> str:
    """Names and values in two columns; nested mappings are written on one line."""
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(_flat(v))}</dd>" for name, v in values.items())
    return f"<dl>{''.join(lines)}</dl>"


def image(png: bytes, caption: str, width: int) -> str:
    """An embedded PNG with a caption."""
    return (
        f'<figure style="width:{width}px"><img width="{width}" alt="{escape(caption)}" '
        f'src="{_data("image/png", png)}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def video(mp4: bytes, caption: str) -> str:
    """An embedded MP4 with a caption."""
    return (
        '<figure style="width:512px"><video controls loop muted playsinline preload="metadata" '
        f'src="{_data("video/mp4", mp4)}"></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value))
    return "not recorded" if value is None else str(value)
