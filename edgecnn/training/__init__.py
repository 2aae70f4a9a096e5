"""Training: pictures, losses, assignment, the loop, distillation, and training for int8."""
