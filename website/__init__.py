"""The site: settings of MkDocs, the pages of ``docs`` that are generated, and the check of all links.

``make reference`` rewrites the generated pages, ``make site`` builds ``build/site``. Everything that the site alone
needs stands here, so that the root keeps one folder for it: MkDocs refuses a settings file in the folder of its pages.
"""
