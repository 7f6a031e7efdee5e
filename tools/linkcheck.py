"""Checks a rendered site. Every link that stays within it leads to a page or file that is there, and to an anchor that is there; what calls itself a
report leads to one; and the files that are not rendered, the resources of _quarto.yml, are on the site as they are in nbs."""
import re
import sys
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import yaml
from lxml import html

LINKS = '//a/@href|//link/@href|//img/@src|//script/@src|//video/@src|//video/@poster|//source/@src|//iframe/@src'


REPORT = 'thinkact_nb report'  # the title of every report, from thinkact_nb/templates/report.html
SAYS_REPORT = re.compile(r'(?i)\breports?\b|보고서')
ABOUT_REPORTS = 'report.html'  # the page of 09, which makes them


def resources(nbs):
    "Names of the files that the site takes as they are."
    return yaml.safe_load((Path(nbs)/'_quarto.yml').read_text(encoding='utf-8')).get('project', {}).get('resources', [])


def overwritten(site, nbs):
    "A line for each resource that is on the site no longer what it was: a page of the same name was written over it, or it over the page."
    same = lambda name: (Path(site)/name).is_file() and (Path(site)/name).read_bytes() == (Path(nbs)/name).read_bytes()
    missing = [name for name in resources(nbs) if not (Path(nbs)/name).is_file()]
    return ([f'_quarto.yml: the resource {name} is not in nbs' for name in missing] +
            [f'{name}: not the file of that name in nbs: does a page share its name?' for name in resources(nbs) if name not in missing and not same(name)])


def no_report(link, target, tree):
    "Whether a link that says it leads to a report arrives elsewhere."
    said = ' '.join([link.text_content(), link.get('title') or ''])
    if not SAYS_REPORT.search(said) or target.name == ABOUT_REPORTS or link.get('role') == 'button': return False
    return (tree.findtext('.//title') or '').strip() != REPORT


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
            elif target in trees and target != page and any(no_report(a, target, trees[target]) for a in tree.xpath('//a[@href]') if a.get('href') == link):
                problems.append(f'{where}says report and leads to none: {link}')
    return problems


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit('usage: linkcheck.py SITE_FOLDER')
    problems = check(sys.argv[1], site_url()) + overwritten(sys.argv[1], 'nbs')
    print(*problems, sep='\n', end='\n' if problems else '')
    sys.exit(bool(problems))
