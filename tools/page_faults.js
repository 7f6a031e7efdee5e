// What is wrong with a page as it is shown: a list of sentences. Run by tools/check_browser.py in every window.
async () => {
  const bad = new Map(), short = text => (text || '').trim().replace(/\s+/g, ' ').slice(0, 60)
  const fault = (kind, what) => { const seen = bad.get(kind) || []; seen.push(short(what)); bad.set(kind, seen) }

  for (const i of document.images) {
    i.loading = 'eager'
    if (!i.complete) await new Promise(done => { i.onload = i.onerror = done; setTimeout(done, 5000) })
    if (!i.naturalWidth && !i.src.startsWith('http')) fault('image not shown', i.src)
    if (!i.alt) fault('image without alt', i.src)
  }
  for (const v of document.querySelectorAll('video')) {
    if (v.readyState < 2) await new Promise(done => { v.onloadeddata = v.onerror = done; v.load(); setTimeout(done, 5000) })
    if (v.error || !v.videoWidth) fault('film not shown', v.src)
  }
  const wide = document.documentElement.scrollWidth
  if (wide > innerWidth) fault('wider than the window', `${wide} pixels of ${innerWidth}`)
  for (const t of document.querySelectorAll('table')) if (t.rows.length > 120) fault('table of over 120 rows', `${t.rows.length}: ${t.innerText}`)
  const scrolls = node => node && (/auto|scroll/.test(getComputedStyle(node).overflowX) || scrolls(node.parentElement))
  for (const t of document.querySelectorAll('table')) if (t.checkVisibility() && !scrolls(t) && [...t.rows].some(r => r.getBoundingClientRect().right > innerWidth + 1)) fault('cut column', t.innerText)
  const heard = new Set()
  for (const h of document.querySelectorAll('main h1, main h2')) heard.has(h.innerText) ? fault('name twice', h.innerText) : heard.add(h.innerText)
  for (const p of document.querySelectorAll('pre')) if (p.scrollWidth > p.clientWidth + 1) fault('cut text', p.innerText)

  // Contrast as WCAG defines it. A colour is read by drawing it, so that every way to write one is understood.
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true }), known = {}
  const rgba = text => known[text] ||= (pen.clearRect(0, 0, 1, 1), pen.fillStyle = text, pen.fillRect(0, 0, 1, 1), [...pen.getImageData(0, 0, 1, 1).data])
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] / 255 + below[i] * (1 - top[3] / 255))
  const linear = v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2])
  const canvas = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255], behind = new Map()
  const paper = node => {
    if (!node) return canvas
    if (!behind.has(node)) behind.set(node, over(rgba(getComputedStyle(node).backgroundColor), paper(node.parentElement)))
    return behind.get(node)
  }
  const faint = node => { let left = 1; for (; node; node = node.parentElement) left *= getComputedStyle(node).opacity; return left }

  const range = document.createRange(), texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const text = texts.currentNode, box = text.parentElement
    if (!text.data.trim() || box.closest('script, style, button.copy, math, video') || !box.checkVisibility()) continue
    if (!box.closest('pre, code, svg') && /`[^`]+`|\*\*[^*]+\*\*|\]\([^)]+\)/.test(text.data)) fault('raw Markdown', text.data)
    const style = getComputedStyle(box), below = paper(box), ink = rgba(style.color).slice()
    ink[3] *= faint(box)
    const [high, low] = [light(over(ink, below)), light(below)].sort((a, b) => b - a), contrast = (high + .05) / (low + .05)
    if (contrast < 4.5) fault(`contrast ${contrast.toFixed(2)}, not 4.5, of ${style.color} on ${below.map(Math.round)}`, text.data)
    if (!box.closest('td, th')) continue
    for (const word of text.data.matchAll(/[\p{L}\p{N}.]+/gu)) {
      range.setStart(text, word.index)
      range.setEnd(text, word.index + word[0].length)
      if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) fault('word broken in a table', word[0])
    }
  }
  return [...bad].map(([kind, seen]) => `${kind}: ${seen[0]}` + (seen.length > 1 ? `, and ${seen.length - 1} more` : ''))
}
