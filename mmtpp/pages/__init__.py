"""The style that all pages and figures share: ``page_style``, with a page's CSS."""
