"""Writes into the notebooks what is the same in all: user, repository and branch of settings.ini in badges and links, the install cell, the form at the
top of what makes part of a run, and the cell that names the run; and what follows from where a page lies: its Colab badge, its badge on the index, and
links to pages by their former names. With --check, says whether it is there. What stands in the links now is read off the Colab badge of 00_env."""
import json
import posixpath
import re
import sys

import house
from nbdev.config import get_config

INSTALL = '''#| hide
#| eval: false
import os
if "COLAB_RELEASE_TAG" in os.environ:  # on Colab, install the library and leave Colab's own packages alone: ground/colab says how
    %pip install -q --no-deps "git+https://github.com/{user}/{repo}@{branch}"
    from thinkact_nb.colab import install; install()'''
FORM = '''#| eval: false
#@markdown `HUB`: a repository of yours on the Hub, as in `you/robot`. Without it, what this page makes is lost when the tab closes.
HUB = "" #@param {type:"string"}'''
ASK = '''#| eval: false
#@markdown `HUB`: a repository of yours on the Hub, as in `you/robot`, which the next pages make private if it is not there, and keep your run in.
HUB = "" #@param {type:"string"}'''  # of start
SWITCH = '''
#@markdown `{name}`: the last section {does}. Without it, the page goes on with what you have, else with what comes with the package.
{name} = False #@param {type:"boolean"}'''
# what takes longer than five minutes: the page, its switch, what is done then, and how long it takes
SWITCHES = {
    '04_sft': ('TRAIN', 'trains, one to one and a half hours for Gemma on a T4, ten minutes for the stand-in on two CPU cores'),
    '06_ppo': ('TRAIN', 'trains, one to two hours for Gemma on a T4, five minutes for the stand-in on two CPU cores'),
    '07_eval': ('EVALUATE', 'evaluates your policies, five to ten minutes for Gemma on a T4, two for the stand-in on two CPU cores'),
    '08_tune': ('TRAIN', 'makes one more trial, one to two hours for Gemma on a T4, five minutes for the stand-in on two CPU cores')}
RUN = '''#| eval: false
from thinkact_nb.store import Store, remembered
RUN, RETRAIN = "run", False  # a folder; True makes again what is there
PROFILE = None  # what fits this machine; "gemma4" on a T4: Gemma 4 E2B in place of Gemma 3n
store = Store(RUN, PROFILE, remembered(HUB), shipped=True)'''
BADGE = r'research\.google\.com/github/([\w.-]+)/([\w.-]+)/blob/([\w.-]+)/nbs/'
SHARED = {'%pip install': INSTALL, '#@param': FORM, 'RETRAIN = "run"': RUN}  # what marks a cell, what it should be


def places(cfg):
    "The notebooks, and what else names the project."
    beside = [cfg.config_path/name for name in ('CONTRIBUTING.md', 'SECURITY.md', 'CITATION.cff')]
    return [*house.files(cfg.nbs_path), *(file for file in beside if file.exists())]


def rewritten(text, old, new):
    "`text` with (user, repository, branch) `old` replaced by `new` wherever a link names them."
    (user, repo, branch), (to_user, to_repo, to_branch) = old, new
    text = text.replace(f'{user}/{repo}/blob/{branch}/', f'{to_user}/{to_repo}/blob/{to_branch}/')
    return text.replace(f'{user}/{repo}', f'{to_user}/{to_repo}').replace(f'{user}.github.io/{repo}', f'{to_user}.github.io/{to_repo}')


def shared(template, name, cfg):
    "A shared cell of a notebook."
    if template is FORM and name == 'start': template = ASK
    if template is FORM and name in SWITCHES:
        switch, does = SWITCHES[name]
        template += SWITCH.replace('{name}', switch).replace('{does}', does)
    return template.replace('{user}', cfg.user).replace('{repo}', cfg.repo).replace('{branch}', cfg.branch)


def with_shared(text, name, cfg):
    "A notebook's text with its shared cells as they should be; and their templates, in order."
    nb = json.loads(text)
    found = []
    other = False
    for cell in (c for c in nb['cells'] if c['cell_type'] == 'code'):
        source = ''.join(cell['source'])
        for mark, template in SHARED.items():
            if mark not in source: continue
            should = shared(template, name, cfg)
            found = [*found, template]
            other = other or source != should
            cell['source'] = should.splitlines(keepends=True)
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n' if other else text, found


def badged(text, page):
    "A page's text with its own Colab badge, and in each row of a table of pages that of the row's page."
    row = rf'(\| \[[\w/]+\]\(([\w./]+\.ipynb)\) \|.*?{BADGE})[\w/]+(?=\.ipynb)'
    text = re.sub(row, lambda m: m[1] + house.linked(m[2], page), text)
    return text if page == 'index' else re.sub(rf'({BADGE})[\w/]+(?=\.ipynb)', lambda m: m[1] + page, text, count=1)


def led_on(text, page, nbs):
    "A page's text in which links to former names of pages lead to the pages of today."
    there, former = house.names(nbs), house.former()

    def link(m):
        name = house.linked(m[1], page)
        now = former.get(posixpath.basename(name))
        if name in there or now not in there: return m[0]
        return '](' + posixpath.relpath(f'{now}.ipynb', posixpath.dirname(page) or '.')
    return re.sub(r'\]\(([\w./-]+\.ipynb)', link, text)


def problems(cfg, write):
    "One line for each file whose links or shared cells are not as they should be; `write` mends them."
    found = re.search(BADGE, (cfg.nbs_path/'00_env.ipynb').read_text(encoding='utf-8'))
    if not found: return ['nbs/00_env.ipynb: no Colab badge; its first cell should be one']
    new, out = (cfg.user, cfg.repo, cfg.branch), []
    for path in places(cfg):
        text, name = path.read_text(encoding='utf-8'), path.relative_to(cfg.config_path).as_posix()
        mended, cells = rewritten(text, found.groups(), new), []
        page = house.name_of(path, cfg.nbs_path) if path.suffix == '.ipynb' else ''
        if page: mended, cells = with_shared(led_on(badged(mended, page), page, cfg.nbs_path), page, cfg)
        if page not in ('', 'index'):
            if not re.search(f'{BADGE}{page}.ipynb', mended): out.append(f'{name}: no Colab badge of its own')
            if cells.count(INSTALL) != 1: out.append(f'{name}: {cells.count(INSTALL)} install cells; it should have one')
        if RUN in cells and cells != [INSTALL, FORM, RUN]: out.append(f'{name}: it names a run, so after the install cell it needs the form that asks for HUB')
        if mended == text: continue
        if write: path.write_text(mended, encoding='utf-8')
        else: out.append(f'{name}: links or shared cells are not those of settings.ini and tools/links.py; run `make export`')
    return out


if __name__ == '__main__':
    if found := problems(get_config(), write='--check' not in sys.argv): sys.exit('\n'.join(found))
