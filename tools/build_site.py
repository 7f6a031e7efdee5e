"""Renders the notebooks to _docs with pandoc, so that the site can be read and its links checked where there is no Quarto.
The real site is rendered by Quarto from the same notebooks; page names and anchors are the same."""
import base64
import json
import posixpath
import re
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import house
import lxml.html
import pypandoc
import redirects
import yaml
from linkcheck import check, overwritten, resources, site_url

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # nbdev imports tools.signatures, which settings.ini names
TEMPLATE = HERE/'page.html'
LOOKS = ('site.css', 'site.js')
RAW = re.compile(r'</code>\]\([^)]*\)')
IMAGES = {'image/png': 'png', 'image/jpeg': 'jpg', 'image/svg+xml': 'svg'}


def text(x): return x if isinstance(x, str) else ''.join(x)


def fence(body, info=''):
    "`body` as a fenced block, with more backticks than any run of them in it."
    ticks = '`' * max(3, 1 + max(map(len, re.findall('`+', body)), default=0))
    return f'{ticks}{info}\n{body.rstrip()}\n{ticks}'


def cell_options(source):
    "A code cell's leading `#| key: value` lines, and the code without them."
    lines = source.splitlines()
    n = next((i for i, o in enumerate(lines) if not o.startswith('#|')), len(lines))
    pairs = (re.match(r'#\|\s*([\w-]+):\s*(.*)', o) for o in lines[:n])
    return {m[1]: yaml.safe_load(m[2]) for m in pairs if m}, '\n'.join(lines[n:])


def output_markdown(out, options, save):
    "One cell output as markdown; `save(bytes, suffix)` keeps an image and returns its address."
    if out['output_type'] == 'stream':
        body = re.sub(r'\x1b\[[0-9;]*m', '', text(out['text']))
        return body if options.get('output') == 'asis' else fence(body)
    if out['output_type'] == 'error': return fence(re.sub(r'\x1b\[[0-9;]*m', '', '\n'.join(out['traceback'])))
    data = out['data']
    for mime, suffix in IMAGES.items():
        if mime not in data: continue
        raw = text(data[mime])
        address = save(raw.encode() if suffix == 'svg' else base64.b64decode(raw), suffix)
        width = out.get('metadata', {}).get(mime, {}).get('width')
        size, alt = f'{{width={width}px}}' if width else '', options.get('fig-alt')
        if alt: return f'![{alt}]({address}){size}\\'  # with the backslash pandoc takes it for no caption
        return f"![{options.get('fig-cap', '')}]({address}){size}"
    if 'application/vnd.jupyter.widget-view+json' in data: return '*Here a widget stands while the notebook runs.*'
    if 'text/markdown' in data: return text(data['text/markdown'])
    if 'text/html' in data: return fence(text(data['text/html']), '{=html}')
    return fence(text(data.get('text/plain', '')))


def page_markdown(path, save):
    "A notebook that nbdev has processed, as (markdown, front matter)."
    front, parts = {}, []
    for cell in json.loads(Path(path).read_text(encoding='utf-8'))['cells']:
        source = text(cell['source'])
        if cell['cell_type'] == 'raw':
            if m := re.fullmatch(r'---\s*\n(.*?)\n---', source.strip(), re.S): front.update(yaml.safe_load(m[1]))
            continue
        if cell['cell_type'] == 'markdown':
            parts.append(source)
            continue
        options, code = cell_options(source)
        if options.get('include') is False: continue
        if options.get('echo') is not False and code.strip():
            block = fence(code, 'python')
            if fold := options.get('code-fold'):
                summary = escape(options.get('code-summary', 'Code'))
                block = f"<details{' open' if fold == 'show' else ''}><summary>{summary}</summary>\n\n{block}\n\n</details>"
            parts.append(block)
        if options.get('output') is not False:
            parts += [output_markdown(o, options, save) for o in cell.get('outputs', [])]
    return '\n\n'.join(parts), front


def pandoc(body, *args):
    "(what pandoc makes of `body`, its warnings, one a line)"
    done = subprocess.run([pypandoc.get_pandoc_path(), *args], input=body, text=True, encoding='utf-8', capture_output=True)
    return done.stdout, done.stderr.strip().splitlines()


def relink(node, change):
    "Puts every link and image address of a pandoc tree through `change`, those in raw HTML too."
    if isinstance(node, list):
        for o in node: relink(o, change)
    elif isinstance(node, dict):
        kind, content = node.get('t'), node.get('c')
        if kind in ('Link', 'Image'): content[2][0] = change(content[2][0])
        if kind in ('RawInline', 'RawBlock') and content[0] == 'html':
            content[1] = re.sub(r'((?:href|src)=")([^"]*)"', lambda m: f'{m[1]}{change(m[2])}"', content[1])
        for o in node.values(): relink(o, change)


def render(body, change, *args):
    "Markdown through pandoc, links changed on the way: (result, warnings)"
    tree, warned = pandoc(body, '-f', 'markdown', '-t', 'json')
    if not tree: return '', warned
    tree = json.loads(tree)
    relink(tree['blocks'], change)
    out, more = pandoc(json.dumps(tree), '-f', 'json', *args)
    return out, warned + more


def sidebar(items, pages, here, root='', open_to=2, depth=1):
    "The sidebar's list; `pages` maps a notebook's path to (address, title). A section below `open_to`, as Quarto counts, is closed unless it holds the page."
    out = []
    for o in items:
        if isinstance(o, dict) and 'href' in o: out.append(f"""<li><a href="{escape(root + o['href'])}">{escape(o['text'])}</a></li>""")
        elif isinstance(o, dict) and 'section' in o:
            is_open = open_to > depth or here in house.leaves(o['contents'])
            inner = sidebar(o['contents'], pages, here, root, open_to, depth + 1)
            out.append(f"<li><details{' open' if is_open else ''}><summary>{escape(o['section'])}</summary>{inner}</details></li>")
        elif isinstance(o, dict): out.append(f"<li><b>{escape(o['text'])}</b></li>")
        elif o in pages:
            page, title = pages[o]
            out.append(f'''<li><a href="{root}{page}"{' aria-current="page"' if o == here else ''}>{escape(title)}</a></li>''')
    return f"<ul>{''.join(out)}</ul>"


def search_entries(body, page, title):
    "What the search finds of a page: one entry for each section, with the words in it."
    main = lxml.html.fromstring(body).find('.//main')
    entries = [dict(page=title, title=title, href=page, text='')]
    for node in main.iter():
        if node.tag in ('h2', 'h3') and node.get('id'):
            entries.append(dict(page=title, title=node.text_content().strip(), href=f"{page}#{node.get('id')}", text=''))
        elif node.tag in ('p', 'li', 'td', 'th', 'pre') and not any(o.tag in ('p', 'li', 'td', 'pre', 'footer') for o in node.iterancestors()):
            entries[-1]['text'] += ' ' + ' '.join(node.text_content().split())
    return entries


def process(root):
    "nbdev's own processing of all notebooks for the site, into _proc: (folder, problems). It imports the package of this tree."
    from nbdev.serve import proc_nbs
    sys.path.insert(0, str(root))
    try: return proc_nbs(n_workers=0, force=True, skip_folder_re=r'^[_.]|^runs$'), []
    except Exception as e: return None, [f"{str(e).splitlines()[0]} {e.__cause__ or ''}".strip()]


def build(cfg):
    "Writes the site and returns a line for each problem."
    if not (cfg.nbs_path/'_quarto.yml').exists(): return ['nbs/_quarto.yml: should be a link to ../_quarto.yml']
    side = house.website(cfg.nbs_path)['sidebar']
    items = side['contents']
    proc, problems = process(cfg.config_path)
    if problems: return problems
    site = cfg.doc_path
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(proc, site, ignore=shutil.ignore_patterns('*.ipynb', '*.yml', '.*'))

    bodies, pages = {}, {}
    for nb in sorted(proc.rglob('*.ipynb')):
        name = nb.relative_to(proc).as_posix()
        folder, count = (site/name).parent/f'{nb.stem}_files', []
        def save(data, suffix):
            folder.mkdir(parents=True, exist_ok=True)
            count.append(1)
            (folder/f'{len(count)}.{suffix}').write_bytes(data)
            return f'{folder.name}/{len(count)}.{suffix}'
        bodies[name] = page_markdown(nb, save)
        front = bodies[name][1]
        pages[name] = posixpath.join(posixpath.dirname(name), front.get('output-file', f'{nb.stem}.html')), front.get('title', nb.stem)

    owners = {page: name for name, (page, _) in pages.items()}
    problems += [f'_quarto.yml: the resource {o} has the name of the page of {owners[o]}: rename the file' for o in resources(cfg.nbs_path) if o in owners]
    order = house.leaves(items)
    problems += [f'_quarto.yml: the sidebar names {o}, and there is no such notebook' for o in order if o not in pages]
    problems += [f'_quarto.yml: {o} is not in the sidebar' for o in pages if o not in order]
    order = [o for o in order if o in pages]

    def to_page(url, name):
        "A link of page `name` to a notebook, or to the site by its address, as a link from page to page."
        path, mark, anchor = url.partition('#')
        inside = path.removeprefix(site_url() + '/')
        if inside in dict(pages.values()): target = inside
        elif (to := house.linked(path, name)) and f'{to}.ipynb' in pages: target = pages[f'{to}.ipynb'][0]
        else: return url
        return posixpath.relpath(target, posixpath.dirname(name) or '.') + mark + anchor

    for name in LOOKS: shutil.copy(HERE/name, site)
    found = []
    for name, (body, front) in bodies.items():
        at = order.index(name) if name in order else 0
        near = {'before': order[at-1] if at else None, 'after': order[at+1] if at + 1 < len(order) else None}
        meta, root = {'title': front.get('title', name), 'subtitle': front.get('description', '')}, '../'*name.count('/')
        extra = {'site': cfg.title, 'repo': cfg.git_url, 'branch': cfg.branch, 'notebook': name, 'root': root,
                 'sidebar': sidebar(items, pages, name, root, side.get('collapse-level', 2)),
                 **{k: root + pages[o][0] for k, o in near.items() if o}, **{f'{k}-title': pages[o][1] for k, o in near.items() if o}}
        args = ['-t', 'html5', '--template', TEMPLATE, '--toc', '--toc-depth=3', '--mathml', '--eol=lf',
                *(f'-V{k}={v}' for k, v in extra.items()), *(f'-M{k}={v}' for k, v in meta.items() if v)]
        page, warned = render(body, lambda url, name=name: to_page(url, name), *map(str, args))
        problems += [f'{name}: {o}' for o in warned]
        problems += [f'{name}: a link in a link, which shows as raw Markdown: no link around the name of a symbol, {o}' for o in RAW.findall(page)]
        (site/pages[name][0]).parent.mkdir(exist_ok=True)
        (site/pages[name][0]).write_text(page, encoding='utf-8')
        if page: found += search_entries(page, *pages[name])
    (site/'search.js').write_text(f'const SEARCH = {json.dumps(found, ensure_ascii=False)}\n', encoding='utf-8')
    redirects.write(site, cfg.nbs_path)
    return problems + check(site, site_url()) + overwritten(site, cfg.nbs_path)


if __name__ == '__main__':
    from nbdev.config import get_config
    problems = build(get_config())
    print('\n'.join(problems) or f'site: {get_config().doc_path.name}/index.html, every local link leads somewhere')
    sys.exit(bool(problems))
