"""Keeps every former address of the site alive: `python tools/redirects.py _docs`, after Quarto; tools/build_site.py does
it by itself. A page that was renamed or taken into another leaves a line in tools/former.txt; its old address then
leads to the new one, with the anchor that was asked for."""
import posixpath
import sys
from pathlib import Path

import house

PAGE = '''<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Moved</title>
<link rel="canonical" href="{to}"><meta name="robots" content="noindex">
<script>location.replace("{to}" + location.hash)</script><meta http-equiv="refresh" content="0; url={to}"></head>
<body><p>This page is now <a href="{to}">{to}</a>.</p></body></html>
'''


def write(site, nbs=house.NBS):
    "Writes a page for each former address that no page of today has."
    for old, new in house.redirects(nbs).items():
        file = Path(site)/old
        if file.exists(): continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGE.format(to=posixpath.relpath(new, posixpath.dirname(old) or '.')), encoding='utf-8')


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit('usage: redirects.py SITE_FOLDER')
    write(sys.argv[1])
