"Checks every link of a rendered site that stays within the site: the page or file is there, and so is the anchor."
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote, urlparse

from lxml import html

LINKS = '//a/@href|//link/@href|//img/@src|//script/@src|//video/@src|//video/@poster|//source/@src|//iframe/@src'


def site_url():
    "Where the site will be served, from settings.ini in the working folder."
    cfg = ConfigParser()
    cfg.read('settings.ini', encoding='utf-8')
    return cfg['DEFAULT']['doc_host'] + cfg['DEFAULT']['doc_baseurl']


def check(site:Path, # folder of .html pages
          base:str='', # links that begin with this address are links into `site`
         ) -> list: # one line for each broken link
    site = Path(site).resolve()
    parser = html.HTMLParser(encoding='utf-8')
    trees = {f: html.parse(str(f), parser) for f in sorted(site.rglob('*.html'))}
    anchors = {f: {'top', *t.xpath('//@id|//a/@name')} for f, t in trees.items()}
    problems = [] if trees else [f'{site.name}: no pages']
    for page, tree in trees.items():
        for link in dict.fromkeys(tree.xpath(LINKS)):
            inside = base and (link == base or link.startswith((base + '/', base + '#')))
            url = urlparse('/' + link[len(base):].lstrip('/') if inside else link)
            if url.scheme or url.netloc: continue
            path = unquote(url.path)
            target = (site/path.lstrip('/') if path.startswith('/') else page.parent/path if path else page).resolve()
            if target.is_dir(): target /= 'index.html'
            where = f'{page.relative_to(site)}: '
            if not target.is_relative_to(site): problems.append(f'{where}leaves the site: {link}')
            elif not target.exists(): problems.append(f'{where}missing: {link}')
            elif url.fragment and target in anchors and unquote(url.fragment) not in anchors[target]:
                problems.append(f'{where}no such anchor: {link}')
    return problems


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit('usage: linkcheck.py SITE_FOLDER')
    problems = check(sys.argv[1], site_url())
    print(*problems, sep='\n', end='\n' if problems else '')
    sys.exit(bool(problems))
