"""Writes the user, repository and branch of settings.ini into badges, links and install lines; with --check, says whether they are there.
What stands there now is read off the Colab badge of 00_env."""
import re
import sys
from pathlib import Path

from nbdev.config import get_config


def places(cfg): return [*sorted(cfg.nbs_path.glob('*.ipynb')), cfg.config_path/'CONTRIBUTING.md']


def rewritten(text, old, new):
    "`text` with (user, repository, branch) `old` replaced by `new` wherever a link names them."
    (user, repo, branch), (to_user, to_repo, to_branch) = old, new
    text = text.replace(f'{user}/{repo}/blob/{branch}/', f'{to_user}/{to_repo}/blob/{to_branch}/')
    return text.replace(f'{user}/{repo}', f'{to_user}/{to_repo}').replace(f'{user}.github.io/{repo}', f'{to_user}.github.io/{to_repo}')


def problems(cfg, write):
    "One line for each file whose links are not those of settings.ini, and for each notebook with no badge of its own; `write` mends the links."
    badge = r'research\.google\.com/github/([\w.-]+)/([\w.-]+)/blob/([\w.-]+)/nbs/'
    found = re.search(badge, (cfg.nbs_path/'00_env.ipynb').read_text(encoding='utf-8'))
    if not found: return ['nbs/00_env.ipynb: no Colab badge; its first cell should be one']
    new, out = (cfg.user, cfg.repo, cfg.branch), []
    for path in places(cfg):
        text, name = path.read_text(encoding='utf-8'), path.relative_to(cfg.config_path).as_posix()
        mended = rewritten(text, found.groups(), new)
        if re.match(r'\d\d_', path.name) and not re.search(badge + path.name, text): out.append(f'{name}: no Colab badge of its own')
        if mended == text: continue
        if write: path.write_text(mended, encoding='utf-8')
        else: out.append(f'{name}: links are not those of settings.ini; run `make export`')
    return out


if __name__ == '__main__':
    if found := problems(get_config(), write='--check' not in sys.argv): sys.exit('\n'.join(found))
