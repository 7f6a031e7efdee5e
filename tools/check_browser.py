"""Opens the site and the demo's report in headless Chromium, as `make test-browser` does: every page must load without an error in
its console, show every image and film, name every image for those who do not see it, fit a phone, have text of a contrast of 4.5 or
more in both themes, no cut sentence, no broken word in a table and no table of over 120 rows; and the site's tools must work.
Words after the command are pages to look at alone. Screenshots go to .browser/shots, to be looked at.
Chromium is the one that CHROMIUM names, else Playwright's own, else, where only package registries can be reached, the one in the npm
package @sparticuz/chromium."""
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

HERE = Path('.browser')
FLAGS = ['--no-sandbox', '--no-zygote', '--single-process', '--disable-dev-shm-usage', '--use-gl=angle', '--use-angle=swiftshader']
FONTS = '''<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{fonts}</dir><dir>/usr/share/fonts</dir><cachedir>{cache}</cachedir>
<alias><family>system-ui</family><prefer><family>DejaVu Sans</family></prefer></alias><alias><family>sans-serif</family><prefer><family>DejaVu Sans</family></prefer></alias>
<alias><family>monospace</family><prefer><family>DejaVu Sans Mono</family></prefer></alias></fontconfig>'''
FAULTS = (Path(__file__).parent/'page_faults.js').read_text(encoding='utf-8')
WINDOWS = ((1200, 'light'), (1200, 'dark'), (390, 'light'))


def from_npm():
    "The folder of the Chromium in @sparticuz/chromium, fetched once."
    if not (folder := HERE/'chromium').exists():
        import brotli
        about = json.load(urllib.request.urlopen('https://registry.npmjs.org/@sparticuz/chromium/latest'))
        package = tarfile.open(fileobj=io.BytesIO(urllib.request.urlopen(about['dist']['tarball']).read()))
        folder.mkdir()
        for name in ('chromium', 'swiftshader.tar', 'al2023.tar'):
            body = brotli.decompress(package.extractfile(f'package/bin/{name}.br').read())
            if name == 'chromium':
                (folder/'chromium').write_bytes(body)
                (folder/'chromium').chmod(0o755)
            else: tarfile.open(fileobj=io.BytesIO(body)).extractall(folder, filter='data')
    import matplotlib
    (folder/'fonts.conf').write_text(FONTS.format(fonts=Path(matplotlib.get_data_path())/'fonts'/'ttf', cache=(folder/'cache').resolve()), encoding='utf-8')
    os.environ.update(LD_LIBRARY_PATH=str((folder/'lib').resolve()), FONTCONFIG_PATH=str(folder.resolve()))
    return folder


def launch(chromium):
    if path := os.environ.get('CHROMIUM'): return chromium.launch(executable_path=path)
    try: return chromium.launch()
    except Exception as e:
        if "Executable doesn't exist" not in str(e): raise
    if not subprocess.run([sys.executable, '-m', 'playwright', 'install', 'chromium'], capture_output=True).returncode: return chromium.launch()
    return chromium.launch(executable_path=str(from_npm()/'chromium'), args=FLAGS)


def listeners(faults):
    "What the browser says by itself of a page, put into `faults`."
    def console(m):
        if m.type == 'error' and 'net::ERR_NAME_NOT_RESOLVED' not in m.text: faults.append(f'console: {m.text[:200]}')
    def failed(r):
        if r.url.startswith('file:') and r.failure != 'net::ERR_ABORTED': faults.append(f'missing: {r.url[-80:]}')
    return dict(console=console, requestfailed=failed, pageerror=lambda e: faults.append(f'script: {str(e)[:200]}'))


def check(tab, page, shots):
    "What is wrong with a page, in every window."
    faults = []
    heard = listeners(faults)
    for event, hear in heard.items(): tab.on(event, hear)
    for width, scheme in WINDOWS:
        tab.set_viewport_size(dict(width=width, height=1600))
        tab.emulate_media(color_scheme=scheme)
        if (width, scheme) == WINDOWS[0]: tab.goto(page.resolve().as_uri())
        faults += [f'{fault} ({width}, {scheme})' for fault in tab.evaluate(FAULTS)]
        tab.screenshot(path=shots/f'{page.parent.name}-{page.stem}-{width}-{scheme}.png')
    for event, hear in heard.items(): tab.remove_listener(event, hear)
    return faults


def tools_of_the_site(tab, page):
    "What is wrong with search, theme switch, copy buttons and the way to the reports and back."
    tab.set_viewport_size(dict(width=1200, height=900))
    tab.emulate_media(color_scheme='light')
    tab.goto(page.resolve().as_uri())
    faults, paper = [], lambda: tab.evaluate('getComputedStyle(document.body).backgroundColor')
    before = paper()
    tab.locator('#theme').click()
    if paper() == before: faults.append('the theme switch changes nothing')
    tab.reload()
    if paper() == before: faults.append('the chosen theme is forgotten')
    tab.locator('#theme').click()
    tab.locator('#search').fill('clipped surrogate')
    hits = tab.locator('#found a').all_inner_texts()
    if not hits: faults.append('search finds nothing for "clipped surrogate"')
    tab.evaluate("Object.defineProperty(navigator, 'clipboard', {value: {writeText: text => { window.copied = text }}})")
    tab.goto((page.parent/'report.html').resolve().as_uri())
    tab.evaluate("Object.defineProperty(navigator, 'clipboard', {value: {writeText: text => { window.copied = text }}})")
    code = tab.locator('div.sourceCode').first
    code.hover()
    code.locator('button.copy').click()
    if not tab.evaluate('window.copied'): faults.append('the copy button copies nothing')
    tab.locator('aside a', has_text='case by case').click()
    tab.locator('main nav a').click()
    if not tab.url.endswith('report.html'): faults.append('no way back from the gallery')
    return faults


def playground(tab, shots):
    "What is wrong with the playground of the page on the pool in JupyterLab, after a click on Run."
    kernel = HERE/'share'/'jupyter'/'kernels'/'thinkact'
    port = 18888
    cell = 'from thinkact_nb.pool import Playground; Playground().show()'
    kernel.mkdir(parents=True, exist_ok=True)
    (kernel/'kernel.json').write_text(json.dumps(dict(display_name='thinkact', language='python', argv=[str(Path('.venv/bin/python').absolute()), '-m', 'ipykernel_launcher', '-f', '{connection_file}'])), encoding='utf-8')
    notebook = dict(cells=[dict(cell_type='code', id='a', metadata={}, source=cell, outputs=[], execution_count=None)], metadata=dict(kernelspec=dict(name='thinkact', display_name='thinkact')), nbformat=4, nbformat_minor=5)
    (folder := HERE/'lab').mkdir(exist_ok=True)
    (folder/'play.ipynb').write_text(json.dumps(notebook), encoding='utf-8')
    server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', f'--port={port}', '--IdentityProvider.token=', f'--ServerApp.root_dir={folder.resolve()}'],
                              env=os.environ | dict(LD_LIBRARY_PATH='', THINKACT_RENDERER='tiny'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try: urllib.request.urlopen(f'http://127.0.0.1:{port}/api')
            except OSError: time.sleep(.5)
            else: break
        tab.set_viewport_size(dict(width=1200, height=900))
        tab.goto(f'http://127.0.0.1:{port}/lab/tree/play.ipynb')
        tab.locator('.jp-CodeCell .cm-content').click(timeout=120_000)
        tab.keyboard.press('Shift+Enter')
        tab.locator('button.jupyter-button', has_text='Run').click(timeout=120_000)
        tab.locator('.widget-html-content', has_text='success').wait_for(timeout=60_000)
        tab.screenshot(path=shots/'playground.png')
    except Exception as e: return [str(e).splitlines()[0]]
    finally: server.terminate()
    return []


def main(names, shots):
    "Open the pages of the site and of the demo's report, or those that are named."
    from playwright.sync_api import sync_playwright
    shots.mkdir(parents=True, exist_ok=True)
    leads_on = lambda page: 'http-equiv="refresh"' in page.read_text(encoding='utf-8')
    built = [page for page in sorted(Path('_docs').rglob('*.html')) if not leads_on(page)]
    pages = [*built, *Path('runs/demo/report').glob('index.html')]
    if names: pages = [page for page in pages if page.stem in names]
    with sync_playwright() as play:
        browser = launch(play.chromium)
        tab = browser.new_page()
        wrong = {page: check(tab, page, shots) for page in pages}
        wrong[Path('search, theme and copy buttons')] = tools_of_the_site(tab, Path('_docs/index.html'))
        if not names: wrong[Path('the playground in JupyterLab')] = playground(tab, shots)
        browser.close()
    for page, faults in wrong.items():
        for fault in dict.fromkeys(faults): print(f'{page}: {fault}')
    faulty = sum(map(bool, wrong.values()))
    print(f'{len(pages)} pages opened, site tools{"" if names else " and the playground"} used, {faulty} with faults; screenshots in {shots}')
    return bool(faulty)


if __name__ == '__main__': sys.exit(main(sys.argv[1:], HERE/'shots'))
