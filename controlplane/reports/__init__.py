# Reports of sweeps: what was asked, what was measured, what that means; as pictures, a page and a summary.
"""`material.py` is what goes in, `points.py` and `standings.py` say what it means, `charts/` draws it, `page.py` and
`summary.py` write it down, `theme.py` has every colour and font."""
