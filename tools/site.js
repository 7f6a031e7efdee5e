// Theme, search and copy buttons of the pages that tools/build_site.py writes. It works from a folder, with no server: the index is a script.
const root = document.documentElement
const way = document.currentScript.dataset.root  // from this page to the folder of the site
const dark = () => root.style.colorScheme ? root.style.colorScheme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
const remembered = (() => { try { return localStorage } catch { return {} } })()
if (remembered.theme) root.style.colorScheme = remembered.theme

document.addEventListener('DOMContentLoaded', () => {
  const narrow = matchMedia('(max-width: 70rem)')
  const fold = () => { document.querySelector('#pages').open = !narrow.matches }  // on a phone the page comes first
  narrow.addEventListener('change', fold)
  fold()

  const theme = document.querySelector('#theme')
  const name = () => theme.setAttribute('aria-label', dark() ? 'Use the light theme' : 'Use the dark theme')
  name()
  theme.addEventListener('click', () => { root.style.colorScheme = remembered.theme = dark() ? 'light' : 'dark'; name() })

  for (const block of document.querySelectorAll('div.sourceCode')) {
    const button = Object.assign(document.createElement('button'), { className: 'copy', type: 'button', textContent: 'Copy' })
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(block.querySelector('code').innerText)
      button.textContent = 'Copied'
      setTimeout(() => { button.textContent = 'Copy' }, 1500)
    })
    block.append(button)
  }

  const box = document.querySelector('#search'), list = document.querySelector('#found')
  box.addEventListener('input', () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean)
    const score = o => words.reduce((sum, w) => sum + 10 * o.title.toLowerCase().includes(w) + o.text.toLowerCase().split(w).length - 1, 0)
    const has = o => words.every(w => (o.title + ' ' + o.text).toLowerCase().includes(w))
    const hits = words.length ? SEARCH.filter(has).sort((a, b) => score(b) - score(a)).slice(0, 12) : []
    list.replaceChildren(...hits.map(o => {
      const item = document.createElement('li'), link = document.createElement('a'), where = document.createElement('small')
      Object.assign(link, { href: way + o.href, textContent: o.title })
      where.textContent = o.page
      item.append(link, where)
      return item
    }))
    if (words.length && !hits.length) list.textContent = 'Nothing found.'
  })
})
