"""Where the pages lie and in which order they are read. The sidebar of nbs/_quarto.yml is the one place that says it;
every tool and test asks here.

A page is named by its path in nbs without the ending: `06_ppo`, `keep/store`. The ten pages of the course lie in nbs,
every other page in the folder of its box. `python tools/house.py` prints the names in their order."""
import json
import posixpath
import re
from pathlib import Path

import yaml

NBS = Path(__file__).parent.parent/'nbs'
FORMER = Path(__file__).parent/'former.txt'  # former names of pages, and what they are now
FRONT = ('start', 'index')
BOX_OF_COURSE = {
    '00_env': 'ground',
    '01_sim': 'world',
    '02_data': 'language',
    '03_model': 'model',
    '04_sft': 'model',
    '05_reward': 'reinforce',
    '06_ppo': 'reinforce',
    '07_eval': 'measure',
    '08_tune': 'measure',
    '09_report': 'show'}


def website(nbs=NBS):
    "What nbs/_quarto.yml says of the site; an empty sidebar, where there is no such file."
    file = Path(nbs)/'_quarto.yml'
    if not file.exists(): return dict(sidebar=dict(contents=[]))
    return yaml.safe_load(file.read_text(encoding='utf-8'))['website']


def sidebar(nbs=NBS): return website(nbs)['sidebar']['contents']


def leaves(items):
    "The notebooks of a sidebar in their order, without what it links to besides."
    found = []
    for item in items:
        if isinstance(item, dict): found += leaves(item.get('contents', []))
        else: found.append(item)
    return found


def files(nbs=NBS):
    "Every notebook in nbs, in no order: what a run left there is none, nor what begins with a mark."
    skipped = lambda part: part[0] in '_.' or part in ('run', 'runs')
    return [path for path in sorted(Path(nbs).rglob('*.ipynb')) if not any(map(skipped, path.relative_to(nbs).parts))]


def name_of(path, nbs=NBS):
    "The name of a page; of a notebook that lies elsewhere, that of its file."
    path = Path(path)
    return path.relative_to(nbs).with_suffix('').as_posix() if path.is_relative_to(nbs) else path.stem


def path_of(name, nbs=NBS): return Path(nbs)/f'{name}.ipynb'


def cells(path): return json.loads(Path(path).read_text(encoding='utf-8'))['cells']


def names(nbs=NBS):
    "Every page in the order of the sidebar; what the sidebar forgets comes last."
    there = [name_of(path, nbs) for path in files(nbs)]
    listed = [item.removesuffix('.ipynb') for item in leaves(sidebar(nbs))]
    return [name for name in dict.fromkeys([*listed, *there]) if name in there]


def pages(nbs=NBS):
    "The pages in their order, without the index, which is no page to run."
    return [path_of(name, nbs) for name in names(nbs) if name != 'index']


def lessons(nbs=NBS):
    "The pages of the course and of the boxes."
    return [path_of(name, nbs) for name in names(nbs) if name not in FRONT]


def in_course(name): return name in BOX_OF_COURSE


def course(nbs=NBS): return [name for name in names(nbs) if in_course(name)]


def box(name):
    "The box of a page: its folder, or where the page of the course belongs."
    return posixpath.dirname(name) or BOX_OF_COURSE.get(name, '')


def boxes(nbs=NBS):
    "The boxes in the order in which they stand on each other: that of the sidebar's sections."
    within = leaves(item for item in sidebar(nbs) if isinstance(item, dict))
    deep = [box(name) for name in within if '/' in name]
    return list(dict.fromkeys(deep or filter(None, map(box, names(nbs)))))


def linked(url, name):
    "The name of the page that a link on page `name` leads to, whether or not there is one; None: it leads to no page."
    path = url.partition('#')[0]
    if '://' in path or not path.endswith('.ipynb'): return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path)).removesuffix('.ipynb')


def address(name):
    "The address of a page on the site, as nbdev makes it: without the number of the course."
    folder, stem = posixpath.split(name)
    return posixpath.join(folder, re.sub(r'^\d+[a-zA-Z0-9]*_', '', stem) + '.html')


def former():
    "{former name: the name of the page that has its subject now}"
    lines = FORMER.read_text(encoding='utf-8').splitlines()
    rows = [line.split('→') for line in lines if '→' in line]
    return {old.strip(): new.strip() for old, new in rows}


def redirects(nbs=NBS):
    "{former address: address} of pages that were named otherwise, but for addresses that another page has taken."
    there = names(nbs)
    taken = {address(name) for name in there}
    found = {}
    for old, new in former().items():
        if new not in there: continue
        for at in (address(old), f'{old}.html'):
            if at not in taken: found[at] = address(new)
    return found


if __name__ == '__main__': print(*names(), sep='\n')
