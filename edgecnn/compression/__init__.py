"""Making a trained network smaller or faster without losing what it knows."""
