"""What pretrained weights give on events with texts, compared with random weights."""
