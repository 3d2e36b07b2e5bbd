"""From media to pairs: frames, boxes and crops of animals (``detect``), and which of them are one (``mine``)."""
