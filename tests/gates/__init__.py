"""Gates: what must hold before anything is published."""
