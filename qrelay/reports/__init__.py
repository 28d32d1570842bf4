"""What reports for people share: one page frame (templates/), one stylesheet, and one kind of diagram.

    page    a template of `templates/` rendered to one HTML file that needs no network; how numbers are shown
    plots   an empty diagram, and its PNG

Needs jinja2 and matplotlib, loaded when a report is written.
"""
