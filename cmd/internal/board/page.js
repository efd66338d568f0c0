// The page of a dcfs origin or node: it asks for JSON every two seconds and
// draws it. Whatever comes from a host becomes text, never markup.
'use strict';

const EVERY = 2000, PATIENCE = 10000, PAGE = 100, KEPT = 90;
const STATES = ['announced', 'mounted', 'fetching', 'complete', 'materialised', 'lingering', 'seeding', 'done', 'lost', 'failed'];
// What bounds a transfer, in a word; the whole sentence is in the row's details.
const BOUNDS = { 'peers-and-link': 'network', 'nobody-has-it': 'nobody has it', 'no-peers': 'no peers', 'down-cap': '--down', 'peer-silent': 'silent peer' };
const $ = (id) => document.getElementById(id);
const view = { release: decodeURIComponent(location.hash.slice(1)), offset: 0, open: new Set(), rates: new Map(), heard: 0, cells: null };

// el makes an element; strings among the children are text.
function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(props || {})) {
    if (k === 'on') for (const [type, f] of Object.entries(v)) e.addEventListener(type, f);
    else if (k === 'css') for (const [name, value] of Object.entries(v)) e.style.setProperty(name, value);
    else if (k in e) e[k] = v;
    else e.setAttribute(k, v);
  }
  e.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false && c !== ''));
  return e;
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const stateColour = (s) => s === 'failed' ? 'var(--bad)' : STATES.includes(s) ? `var(--${s})` : 'var(--dim)';

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let u = 0;
  while (n >= 1024 && u < units.length - 1) { n /= 1024; u++; }
  return (u === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + ' ' + units[u];
}
const rate = (n) => n > 0 ? bytes(n) + '/s' : '–';
function lasting(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (ms < 10000) return (ms / 1000).toFixed(1) + ' s';
  if (s < 120) return s + ' s';
  if (s < 7200) return Math.floor(s / 60) + ' min';
  if (s < 172800) return Math.floor(s / 3600) + ' h';
  return Math.floor(s / 86400) + ' d';
}
const percent = (x) => x >= 1 ? '100 %' : (Math.floor(x * 1000) / 10).toFixed(1) + ' %'; // never 100 before it is
const count = (n, one, many) => n.toLocaleString('en') + ' ' + (n === 1 ? one : many || one + 's');

function stateBar(states, tall) {
  const all = Object.values(states).reduce((a, b) => a + b, 0);
  return el('div', { className: tall ? 'bar tall' : 'bar' }, STATES.filter((s) => states[s]).map((s) =>
    el('i', { title: `${states[s]} ${s}`, css: { width: 100 * states[s] / all + '%', background: stateColour(s) } })));
}

function sum(title, value, below, kind) {
  return el('div', { className: 'sum ' + (kind || '') }, el('h3', {}, title), el('b', {}, value), el('small', {}, below));
}

function drawSums(o) {
  const came = o.bytes_origin + o.bytes_peers;
  const origin = o.kind === 'origin';
  $('sums').replaceChildren(
    sum(origin ? 'Hosts' : 'Hosts seen', o.hosts.toLocaleString('en'), `${o.whole.toLocaleString('en')} have everything`),
    sum('Need a look', o.attention.toLocaleString('en'), 'failed, lost, stalled or waiting', o.attention ? 'bad' : ''),
    sum('Hosts receive', rate(o.down_rate), `and send ${rate(o.up_rate)}`),
    sum(origin ? 'The origin sends' : 'This node sends', rate(o.sent_rate), `${bytes(o.sent)} so far`),
    sum('From other hosts', came ? percent(o.bytes_peers / came) : '–', came ? `of ${bytes(came)} that came` : 'nothing came yet'),
    sum('Reads that wait', o.waiting.toLocaleString('en'), o.waiting ? `the oldest for ${lasting(o.oldest_wait_ms)}` : 'no program is held up',
      o.oldest_wait_ms > 5000 ? 'bad' : o.waiting ? 'warn' : ''));
}

function drawReleases(o) {
  $('releases').replaceChildren(...o.releases.map((r) => el('button', {
    'aria-current': String(r.version === view.release), title: r.version,
    on: { click: () => choose(r.version) },
  }, el('b', {}, r.version), stateBar(r.states),
  el('small', {}, el('span', {}, bytes(r.bytes)), el('span', {}, r.hosts ? `${count(r.hosts, 'host')} · ${percent(r.progress)}` : 'no host')))),
  o.releases_total > o.releases.length ? el('small', {}, `and ${o.releases_total - o.releases.length} more`) : '');
  document.body.className = o.kind;
}

function drawEvents(o) {
  const items = o.events.map((e) => el('li', { className: e.bad ? 'bad' : '' },
    el('time', { dateTime: e.time, title: new Date(e.time).toLocaleString() }, lasting(Date.parse(o.now) - Date.parse(e.time))),
    el('span', { className: 'what' }, el('b', {}, e.kind), ' ', e.host || '', e.more ? ` and ${e.more} more` : '',
      el('small', { title: e.text || '' }, [e.version, e.text].filter(Boolean).join(' · ')))));
  $('events').replaceChildren(el('h3', {}, 'Events'), items.length ? el('ol', {}, items) : el('p', { className: 'empty' }, 'Nothing has happened yet.'));
}

function drawAbout(d, kind) {
  const r = d.release, came = r.bytes_origin + r.bytes_peers + r.bytes_reused;
  const legend = STATES.filter((s) => r.states[s]).map((s) => el('button', { type: 'button', title: 'show only these', on: { click: () => { $('state').value = s; restart(); } } },
    el('i', { className: 'dot', css: { background: stateColour(s) } }), el('b', {}, r.states[s].toLocaleString('en')), s));
  const sources = [['origin', 'the origin', r.bytes_origin], ['peers', 'other hosts', r.bytes_peers], ['reuse', 'older releases', r.bytes_reused]].filter((s) => s[2]);
  const part = (title, ...rest) => el('div', { className: 'card' }, el('h3', {}, ...title), ...rest);
  const map = el('canvas', { id: 'map', role: 'img', on: { mousemove: tip, mouseleave: () => { $('tip').textContent = mapText(); } } });
  const plot = el('canvas', { id: 'plot', role: 'img', 'aria-label': 'rates of the last minutes' });
  const most = r.cells && r.cells.length ? Math.max(...r.cells) : 0;
  view.cells = { list: r.cells || [], mine: r.mine, pieces: r.pieces, hosts: r.hosts, most, rarest: r.rarest, kind };
  $('about').replaceChildren(
    el('div', { className: 'card' },
      el('div', { className: 'title' }, el('h2', {}, r.version),
        el('span', {}, r.hosts ? `${count(r.hosts, 'host')}, ${percent(r.progress)} there` + (r.eta_ms ? `, the last in ${lasting(r.eta_ms)}` : '') : 'no host has it or wants it')),
      el('p', { className: 'facts' }, [bytes(r.bytes), count(r.files, 'file'), `${count(r.pieces, 'piece')} of ${bytes(r.piece_length)}`,
        r.signed ? (r.key_id ? 'signed by ' + r.key_id : 'signed') : 'not signed'].join(' · ') + ' · ', el('span', { className: 'mono' }, r.infohash)),
      stateBar(r.states, true), el('div', { className: 'legend' }, legend,
        r.bounds.length ? el('span', {}, 'held by ' + r.bounds.map((k) => `${BOUNDS[k.kind] || k.kind} (${k.hosts})`).join(', ')) : '')),
    el('div', { className: 'pair' },
      part(['Piece map', el('small', {}, el('span', { className: 'legend' }, el('span', {}, el('i', { className: 'dot', css: { background: 'var(--none)' } }), 'no host'),
        el('span', {}, '1 ', el('i', { className: 'ramp' }), ` ${Math.max(1, most)}`)))], map, el('small', { id: 'tip' }, mapText())),
      part(['Traffic', el('small', {}, kind === 'origin' ? `the origin has sent ${r.copies.toFixed(2)} copies` : '')], plot,
        came ? el('div', { className: 'bar' }, sources.map((s) => el('i', { title: bytes(s[2]), css: { width: 100 * s[2] / came + '%', background: `var(--${s[0]})` } }))) : '',
        el('div', { className: 'legend' }, came ? sources.map((s) => el('span', {}, el('i', { className: 'dot', css: { background: `var(--${s[0]})` } }), el('b', {}, percent(s[2] / came)), s[1])) : 'no byte has come yet'))));
  drawMap(map);
  drawPlot(plot, r.version);
}

function mapText() {
  const c = view.cells;
  if (!c.list.length) return '';
  const per = c.pieces > c.list.length ? `each square is ${(c.pieces / c.list.length).toFixed(1)} pieces; ` : '';
  const self = c.mine ? 'a ring is what this node lacks; ' : '';
  return per + self + (c.hosts ? `the rarest is on ${c.rarest} of ${count(c.hosts, 'host')}` + (c.kind === 'origin' ? ', beside the origin' : '') : 'nobody but the origin has any');
}

function fit(canvas, height) {
  const scale = window.devicePixelRatio || 1, width = canvas.clientWidth || 300;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = height + 'px';
  const g = canvas.getContext('2d');
  g.scale(scale, scale);
  return [g, width];
}

// mapShape lays the squares out in whole rows of the width, some hundred pixels
// high where that can be.
function mapShape(width) {
  const n = view.cells.list.length, wanted = Math.min(22, Math.max(4, Math.sqrt(width * 100 / Math.max(1, n))));
  const columns = Math.max(1, Math.floor(width / wanted));
  return { columns, rows: Math.max(1, Math.ceil(n / columns)), size: width / columns };
}

function mix(a, b, t) { return `color-mix(in oklab, ${b} ${Math.round(100 * t)}%, ${a})`; }

function drawMap(canvas) {
  const c = view.cells, { columns, rows, size } = mapShape(canvas.clientWidth || 300);
  const [g] = fit(canvas, rows * size);
  const none = colour('none'), low = colour('low'), high = colour('high'), gap = size > 6 ? 1 : 0.4;
  c.list.forEach((n, i) => {
    const x = (i % columns) * size, y = Math.floor(i / columns) * size;
    g.fillStyle = n === 0 ? none : mix(low, high, c.most > 1 ? (n - 1) / (c.most - 1) : 1);
    g.fillRect(x, y, size - gap, size - gap);
    if (c.mine && c.mine[i] < 255) {
      g.strokeStyle = colour('warn');
      g.lineWidth = 1;
      g.strokeRect(x + 1, y + 1, size - gap - 2, size - gap - 2);
    }
  });
  canvas.setAttribute('aria-label', 'how many hosts have each piece: ' + mapText());
}

function tip(event) {
  const c = view.cells, box = event.target.getBoundingClientRect(), { columns, size } = mapShape(box.width);
  const i = Math.floor((event.clientY - box.top) / size) * columns + Math.floor((event.clientX - box.left) / size);
  if (!(i < c.list.length)) return;
  const first = Math.floor(i * c.pieces / c.list.length), last = Math.floor((i + 1) * c.pieces / c.list.length) - 1;
  $('tip').textContent = (last > first ? `pieces ${first}–${last}` : `piece ${first}`) + `: on ${c.list[i]} of ${count(c.hosts, 'host')}`
    + (c.mine ? `; here ${percent(c.mine[i] / 255)}` : '');
}

// drawPlot draws what hosts receive, and what of it the origin sends.
function drawPlot(canvas, version) {
  const list = view.rates.get(version) || [], height = 64;
  const [g, width] = fit(canvas, height), most = Math.max(1, ...list.map((p) => Math.max(p.down, p.sent)));
  const line = (key, name, fill) => {
    g.beginPath();
    list.forEach((p, i) => g.lineTo(width - (list.length - 1 - i) * width / (KEPT - 1), height - 3 - (height - 18) * p[key] / most));
    g.strokeStyle = colour(name);
    g.lineWidth = 1.5;
    g.stroke();
    if (fill && list.length > 1) {
      g.lineTo(width, height);
      g.lineTo(width - (list.length - 1) * width / (KEPT - 1), height);
      g.globalAlpha = 0.15;
      g.fillStyle = colour(name);
      g.fill();
      g.globalAlpha = 1;
    }
  };
  line('down', 'peers', true);
  line('sent', 'origin', false);
  g.fillStyle = colour('dim');
  g.font = '11px system-ui, sans-serif';
  const last = list[list.length - 1] || { down: 0, sent: 0 };
  g.fillText(`received ${rate(last.down)}   ${view.cells.kind === 'origin' ? 'by the origin' : 'sent here'} ${rate(last.sent)}`, 0, 10);
  if (most > 1 && width > 360) {
    g.textAlign = 'right';
    g.fillText(`peak ${rate(most)}`, width, 10);
  }
}

function drawStrip(canvas, h) {
  const raw = h.strip ? atob(h.strip) : '', [g, width] = fit(canvas, 10), step = width / Math.max(1, raw.length);
  g.fillStyle = colour(STATES.includes(h.state) && h.state !== 'failed' ? h.state : 'bad');
  if (!raw) g.fillRect(0, 0, width * h.progress, 10);
  for (let i = 0; i < raw.length; i++) {
    g.globalAlpha = raw.charCodeAt(i) / 255;
    g.fillRect(Math.round(i * step), 0, Math.round((i + 1) * step) - Math.round(i * step), 10);
  }
}

const BAD = { failed: true, lost: true };
function hostRow(h, strips) {
  const strip = el('canvas', { role: 'img', 'aria-label': percent(h.progress) }), key = h.addr;
  strips.push([strip, h]);
  const toggle = () => { view.open.has(key) ? view.open.delete(key) : view.open.add(key); draw(); };
  const row = el('tr', { className: 'row', tabIndex: 0, 'aria-expanded': String(view.open.has(key)), on: { click: toggle, keydown: (e) => { if (e.key === 'Enter') toggle(); } } },
    el('td', { className: 'host' }, h.name || h.client || 'a peer', h.self ? ' (this node)' : '', el('small', { className: 'mono' }, h.addr, h.rack ? ' · ' + h.rack : '')),
    el('td', { className: 'st' }, el('span', { className: 'chip' + (BAD[h.state] || h.stalled ? ' bad' : '') }, el('i', { className: 'dot', css: { background: stateColour(h.state) } }), h.stalled && !BAD[h.state] ? h.state + ', stalled' : h.state),
      ' ', el('small', {}, h.reports ? lasting(h.since_ms) : '')),
    el('td', { className: 'pieces' }, strip, el('small', {}, percent(h.progress))),
    el('td', { className: 'n down' }, rate(h.down_rate)), el('td', { className: 'n up' }, rate(h.up_rate)),
    el('td', { className: 'n np' }, h.peers ? String(h.peers) : ''), el('td', { className: 'n eta' }, h.eta_ms ? lasting(h.eta_ms) : ''),
    el('td', { className: 'n wait' }, h.waiting ? el('span', { className: 'age' + (h.oldest_wait_ms > 5000 ? ' old' : '') }, `${h.waiting} · ${lasting(h.oldest_wait_ms)}`) : ''),
    el('td', { className: 'why', title: h.bound_text || '' }, BOUNDS[h.bound] || h.bound || ''));
  row.dataset.key = key;
  return view.open.has(key) ? [row, el('tr', { className: 'more' }, el('td', { colSpan: 9 }, hostMore(h)))] : [row];
}

function hostMore(h) {
  const rows = [];
  const add = (name, ...text) => rows.push(el('dt', {}, name), el('dd', {}, ...text));
  if (h.reason) add('why', h.reason);
  if (h.bound_text) add('held by', `${h.bound}: ${h.bound_text}`);
  for (const w of h.waits || []) add('waits ' + lasting(w.age_ms), el('span', { className: 'mono' }, w.path || ''), ` piece ${w.piece}, ${count(w.readers, 'read')}`);
  if (h.reports) {
    add('came from', `${bytes(h.bytes_origin)} origin · ${bytes(h.bytes_peers)} other hosts · ${bytes(h.bytes_reused)} older releases`);
    if (h.first_byte_ms) add('first byte', `after ${lasting(h.first_byte_ms)}`);
    add('has', `${bytes(h.have)}; reported ${lasting(h.seen_ms)} ago`);
  } else {
    add('reports', 'nothing: a stock BitTorrent client, or a dcfs with --report=false' + (h.client ? ` (${h.client})` : ''));
    add('has', `${bytes(h.have)}; heard of ${lasting(h.seen_ms)} ago`);
  }
  return el('dl', {}, rows);
}

function drawHosts(d) {
  const focused = document.activeElement?.dataset.key; // all rows are made anew
  const strips = [], head = ['Host', 'State', 'Pieces', 'Down', 'Up', 'Peers', 'Left', 'Waits', 'Held by'];
  $('matched').textContent = d.matched === d.release.hosts ? '' : `${d.matched.toLocaleString('en')} shown`;
  $('table').replaceChildren(d.hosts.length ? el('table', {},
    el('thead', {}, el('tr', {}, head.map((t, i) => el('th', { className: i > 2 && i < 8 ? 'n' : '' }, t)))),
    el('tbody', {}, d.hosts.map((h) => hostRow(h, strips)).flat())) : el('p', { className: 'empty' }, d.release.hosts ? 'No host fits.' : 'No host yet: dcfs mount ' + d.release.version + ' MOUNTPOINT'));
  for (const [canvas, h] of strips) drawStrip(canvas, h);
  if (focused) [...document.querySelectorAll('tr.row')].find((r) => r.dataset.key === focused)?.focus();
  const turn = (to, text) => el('button', { type: 'button', on: { click: () => { view.offset = to; tick(); } } }, text);
  $('pages').hidden = d.matched <= PAGE;
  $('pages').replaceChildren(d.offset > 0 ? turn(Math.max(0, d.offset - PAGE), '‹ before') : '',
    `${d.offset + 1}–${d.offset + d.hosts.length} of ${d.matched.toLocaleString('en')}`,
    d.offset + PAGE < d.matched ? turn(d.offset + PAGE, 'next ›') : '');
}

function drawStates(states) {
  const have = [...$('state').options].map((o) => o.value).join();
  const want = ['', 'attention', ...STATES.filter((s) => states[s] || s === $('state').value)];
  if (want.join() === have) return;
  const chosen = $('state').value;
  $('state').replaceChildren(...want.map((s) => el('option', { value: s }, s === '' ? 'any state' : s === 'attention' ? 'need a look' : s)));
  $('state').value = chosen;
}

function draw() {
  const o = view.overview, d = view.detail;
  document.querySelector('main').hidden = false;
  document.title = `${o.attention ? `(${o.attention}) ` : ''}dcfs ${o.kind} · ${o.name}`;
  $('meta').textContent = `${o.program} · up ${lasting(Date.parse(o.now) - Date.parse(o.started))} · ${count(o.releases_total, 'release')}`;
  drawSums(o);
  drawReleases(o);
  drawEvents(o);
  $('release').hidden = !d;
  if (!d) {
    if (!o.releases.length) $('releases').replaceChildren(el('p', { className: 'card' }, 'No release yet: dcfs publish DIR --as VERSION'));
    return;
  }
  drawAbout(d, o.kind);
  drawStates(d.release.states);
  drawHosts(d);
}

async function ask(path) {
  const answer = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(path + ': ' + answer.status);
  return answer.json();
}

let turn = 0;
async function tick() {
  const mine = ++turn; // a later one makes this one's answer old
  try {
    const o = await ask('v1/board');
    const listed = o.releases.some((r) => r.version === view.release);
    if (!view.release || !listed && o.releases_total <= o.releases.length) view.release = o.releases.length ? o.releases[0].version : '';
    const q = new URLSearchParams({ release: view.release, offset: view.offset, limit: PAGE, q: $('word').value.trim(), state: $('state').value });
    const d = view.release ? await ask('v1/hosts?' + q) : null;
    if (mine !== turn) return;
    for (const r of o.releases) {
      const list = view.rates.get(r.version) || [];
      list.push({ down: r.down_rate, sent: r.sent_rate });
      view.rates.set(r.version, list.slice(-KEPT));
    }
    Object.assign(view, { overview: o, detail: d, heard: Date.now() });
    draw();
    live(true);
  } catch (e) {
    if (mine === turn) live(false);
  }
}

function live(ok) {
  $('live').className = ok ? 'on' : 'off';
  $('live').textContent = ok ? 'live' : view.heard ? `no answer for ${lasting(Date.now() - view.heard)}` : 'no answer';
}

function choose(version) {
  view.release = version;
  history.replaceState(null, '', '#' + encodeURIComponent(version));
  restart();
}

function restart() {
  view.offset = 0;
  view.open.clear();
  tick();
}

$('find').addEventListener('submit', (e) => e.preventDefault());
$('state').addEventListener('change', restart);
$('word').addEventListener('input', restart);
window.addEventListener('resize', () => { if (view.overview) draw(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { if (view.overview) draw(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) tick(); });
setInterval(() => { if (!document.hidden) tick(); }, EVERY);
tick();
