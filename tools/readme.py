"Writes README.md from nbs/index.ipynb; with --check, says whether it is up to date."
import posixpath
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse

from build_site import page_markdown, render
from nbdev.config import get_config
from nbdev.processors import FilterDefaults
from nbdev.serve_drv import exec_nb


class NotInReadme(Exception): pass


def no_images(data, suffix): raise NotInReadme('nbs/index.ipynb: show a committed image file in place of a cell that draws one')


def readme(cfg):
    "(the text README.md should have, one line for each problem)"
    missing = []

    def from_root(url):
        parts = urlparse(url)
        if parts.scheme or parts.netloc or not parts.path: return url
        path = posixpath.normpath(posixpath.join(cfg.nbs_path.name, parts.path))
        if not (cfg.config_path/path).exists(): missing.append(f'nbs/index.ipynb: missing: {url}')
        return path + (f'#{parts.fragment}' if parts.fragment else '')

    with tempfile.TemporaryDirectory() as tmp:
        done = Path(tmp)/cfg.readme_nb
        exec_nb(cfg.nbs_path/cfg.readme_nb, done, FilterDefaults)
        try: body, front = page_markdown(done, no_images)
        except NotInReadme as e: return '', [str(e)]
    top = [f"# {front.get('title', cfg.title)}"] + [f'> {o}' for o in [front.get('description')] if o]
    out, warned = render('\n\n'.join(top + [body]), from_root, '-t', 'gfm', '--wrap=preserve', '--eol=lf')
    return out, warned + missing


if __name__ == '__main__':
    cfg = get_config()
    path = cfg.config_path/'README.md'
    if not (cfg.nbs_path/cfg.readme_nb).exists(): sys.exit(f'nbs/{cfg.readme_nb}: not there, and README.md is written from it')
    new, problems = readme(cfg)
    if not problems and '--check' not in sys.argv: path.write_text(new, encoding='utf-8')
    elif not problems and (not path.exists() or path.read_text(encoding='utf-8') != new):
        problems = ['README.md: not what nbs/index.ipynb gives; edit the notebook and run `make export`']
    if problems: sys.exit('\n'.join(problems))
