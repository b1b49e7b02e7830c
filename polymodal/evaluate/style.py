"""The look of the report: one style sheet, light and dark, no external resource."""

__all__ = ["CSS"]

CSS = """
:root{--ink:#1b2a33;--soft:#5f717b;--line:#dde5e9;--panel:#f3f6f8;--paper:#ffffff;--card:#ffffff;
  --accent:#0e7c86;
--good:#1d7f4e;--bad:#b3362b;--open:#8a6d1d;--goodbg:#e7f4ec;--badbg:#fbeae8;--openbg:#faf3df;
--sans:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,sans-serif;
--mono:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--ink:#e4ebee;--soft:#9aabb4;--line:#2c3a42;--panel:#1a242a;
  --paper:#12191d;
--card:#182126;--accent:#56b9bd;--good:#6cc796;--bad:#ec8a7f;--open:#d7b95c;--goodbg:#17302379;
  --badbg:#3a201d;--openbg:#332c18}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 var(--sans);font-feature-settings:"tnum"}
.frame{display:grid;grid-template-columns:210px minmax(0,1fr);gap:56px;max-width:1240px;margin:0 auto;
  padding:56px 32px 96px}
nav{position:sticky;top:40px;align-self:start;font-size:14px;line-height:1.4}
nav strong{display:block;margin:0 0 14px;font-size:12px;letter-spacing:.08em;text-transform:uppercase;
  color:var(--soft);font-weight:600}
nav ol{list-style:none;margin:0;padding:0;border-left:1px solid var(--line)}
nav a{display:block;padding:5px 0 5px 14px;margin-left:-1px;color:var(--soft);text-decoration:none;
  border-left:1px solid transparent}
nav a:hover,nav a:focus-visible{color:var(--ink);border-left-color:var(--accent)}
main{min-width:0}
header p.eyebrow{margin:0;color:var(--accent);font-weight:600;font-size:14px}
h1{font-size:36px;line-height:1.15;letter-spacing:-.022em;font-weight:650;margin:6px 0 12px}
h2{font-size:23px;line-height:1.25;letter-spacing:-.012em;font-weight:640;margin:0 0 8px}
h3{font-size:16px;font-weight:640;margin:34px 0 10px}
section{margin-top:68px;scroll-margin-top:28px}
p{max-width:72ch;margin:0 0 14px}
p.lead{color:var(--soft);margin-bottom:22px}
.muted{color:var(--soft)}
code{font:13px/1.5 var(--mono);overflow-wrap:anywhere}
.command{display:block;margin:12px 0 0;font-size:12.5px;color:var(--soft)}
.command code{font-size:12px;background:var(--panel);border-radius:5px;padding:2px 7px;color:var(--ink)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(205px,1fr));gap:14px;margin:26px 0}
.tile{background:var(--panel);border-radius:12px;padding:18px 20px}
.tile b{display:block;font-size:30px;line-height:1.15;font-weight:620;letter-spacing:-.02em}
.tile span{display:block;font-size:14px;margin-top:5px;line-height:1.4}
.tile small{display:block;color:var(--soft);font-size:12.5px;margin-top:5px;line-height:1.4}
p.warning{border-left:3px solid var(--open);background:var(--openbg);padding:10px 16px;border-radius:0 8px 8px 0}
p.said{font-size:18px;line-height:1.5;margin:28px 0 12px}
.badge{display:inline-block;font-size:12px;font-weight:640;border-radius:99px;padding:3px 10px;text-align:center;
  white-space:nowrap;margin-top:1px}
.badge.first{color:var(--good);background:var(--goodbg)}
.badge.second{color:var(--bad);background:var(--badbg)}
.badge.unclear{color:var(--open);background:var(--openbg)}
figure{margin:22px 0 0}
figure svg{display:block;width:100%;height:auto;overflow:visible}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
.wide svg{min-width:760px}
figcaption{color:var(--soft);font-size:14px;max-width:80ch;margin-top:12px}
table{border-collapse:collapse;font-size:14px;margin:10px 0;min-width:min(100%,440px)}
th,td{padding:7px 22px 7px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top;
  line-height:1.45}
th{color:var(--soft);font-weight:560;font-size:12.5px;vertical-align:bottom}
td.n,th.n{text-align:right;white-space:nowrap}
td br+.ci{margin-left:0}td .ci{color:var(--soft);font-size:12.5px;margin-left:7px}
tr:last-child td{border-bottom:0}
.meter{display:inline-block;width:120px;height:7px;border-radius:9px;background:var(--line);
  vertical-align:middle;overflow:hidden}
.meter i{display:block;height:100%;background:var(--accent);border-radius:9px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:8px 48px;align-items:start}
table.verdicts{min-width:640px}
table.heat{min-width:0;border-collapse:separate;border-spacing:3px}
table.heat td,table.heat th{border:0;padding:0 10px}
table.heat td{width:104px;height:58px;text-align:center;vertical-align:middle;border-radius:7px;
  font-weight:620;font-size:16px}
table.heat td small{display:block;font-weight:450;font-size:11px;opacity:.85}
table.heat th{text-align:right;font-size:13px;vertical-align:middle}
table.heat thead th{text-align:center;padding-bottom:5px}
table.heat td.none{background:var(--panel);color:var(--soft);font-weight:400}
details{border-top:1px solid var(--line);margin-top:22px;padding-top:12px}
summary{cursor:pointer;color:var(--accent);font-size:14px;font-weight:560}
.example{padding:22px 0;border-top:1px solid var(--line)}
.example:first-of-type{border-top:0}
.example h3{margin:0 0 12px;font-size:13.5px;font-weight:560;color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:14px}
.card{position:relative;background:var(--card);border:1px solid var(--line);border-radius:10px;
  overflow:hidden;font-size:12.5px;line-height:1.35}
.card .picture{text-align:center;aspect-ratio:1;background:var(--panel);display:grid;place-items:center;overflow:hidden;
  color:var(--soft);font-size:12px}
.card .picture span{padding:0 12px}
.card img{width:100%;height:100%;object-fit:contain;display:block;background:#fff}
.card .text{padding:9px 11px 11px}
.card .text b{font-weight:560;display:-webkit-box;-webkit-line-clamp:3;-webkit-box-orient:vertical;
  overflow:hidden;overflow-wrap:anywhere}
.card .text small{color:var(--soft);display:block;margin-top:4px}
.card.query{border-style:dashed;border-color:var(--soft);background:transparent}
.card.right{border-color:var(--good);box-shadow:inset 0 -3px 0 var(--good)}
.card.wrong{box-shadow:inset 0 -3px 0 var(--line)}
.mark{font-weight:640}
.right .mark{color:var(--good)}
.wrong .mark{color:var(--bad)}
.space-controls{display:none;flex-wrap:wrap;gap:10px 26px;align-items:center;font-size:14px}
.space.live .space-controls{display:flex}
.space fieldset{border:0;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:6px;align-items:center}
.space fieldset legend{float:left;color:var(--soft);margin-right:10px;padding:0}
.space fieldset input{position:absolute;opacity:0}
.space fieldset span{display:block;padding:3px 12px;border-radius:99px;background:var(--panel);cursor:pointer}
.space fieldset input:checked+span{background:var(--accent);color:var(--paper)}
.space fieldset input:focus-visible+span{outline:2px solid var(--ink)}
.space-body{display:grid;grid-template-columns:minmax(0,1fr) 210px;gap:22px;margin-top:14px;align-items:start}
.space:not(.live) .space-body{display:block}
.space:not(.live) aside{display:none}
#space-map{width:100%;height:auto;background:var(--panel);border-radius:12px;touch-action:manipulation;
  cursor:crosshair}
#space-map:focus-visible{outline:2px solid var(--accent)}
#space-marks{pointer-events:none}
#space-marks circle{fill:none;stroke:var(--ink);stroke-width:1.6}
#space-marks .chosen{stroke-width:3}
#space-marks line{stroke:var(--soft);stroke-width:1}
#space-card{font-size:13px;line-height:1.4;min-height:320px}
#space-card b{display:block;font-weight:560;overflow-wrap:anywhere;margin-top:8px}
#space-card code{color:var(--soft);font-size:12px}
#space-card .large{width:112px;height:112px;display:block;border-radius:8px;background:#fff}
#space-card .none{background:var(--panel);color:var(--soft);display:grid;place-items:center}
#space-card dl{display:grid;grid-template-columns:auto 1fr;gap:1px 9px;margin:9px 0}
#space-card dt{color:var(--soft)}
#space-card dd{margin:0;overflow-wrap:anywhere}
#space-card h4{font-size:12.5px;color:var(--soft);font-weight:560;margin:10px 0 4px}
#space-card ol{list-style:none;margin:0;padding:0}
#space-card button{display:grid;grid-template-columns:30px 1fr auto;gap:8px;align-items:center;width:100%;border:0;
  background:none;color:inherit;font:inherit;text-align:left;padding:2px 0;cursor:pointer}
#space-card .small{width:30px;height:30px;border-radius:4px;background:#fff}
#space-card i.small{background:var(--panel)}
#space-card button span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
#space-card small,#space-legend small{color:var(--soft)}
#space-legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:12px 0 0;padding:0;font-size:13px}
#space-legend i{display:inline-block;width:11px;height:11px;border-radius:99px;margin-right:6px}
#space-legend button{border:0;background:none;color:inherit;font:inherit;cursor:pointer;padding:1px 6px;
  border-radius:99px;display:flex;align-items:center;gap:5px}
#space-legend button i{margin:0}
#space-legend button[aria-pressed=true]{background:var(--panel);box-shadow:inset 0 0 0 1px var(--soft)}
footer{margin-top:80px;padding-top:18px;border-top:1px solid var(--line);color:var(--soft);font-size:13px}
@media (max-width:900px){.frame{display:block;padding:32px 20px 72px}
nav{position:static;margin-bottom:36px}
nav ol{border:0;display:flex;flex-wrap:wrap;gap:4px 16px}
nav a{padding:2px 0;margin:0}
h1{font-size:29px}
.row{grid-template-columns:repeat(3,minmax(0,1fr))}
section{margin-top:52px}
.space-body{display:block}
#space-card{margin-top:14px}}
@media print{nav{display:none}
.frame{display:block;padding:0}
section{break-inside:avoid-page}}
"""
