"""Backbone weights: safe loading, fetching, what is kept; and the backbone that ships."""
