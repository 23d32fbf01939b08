"""What the Interactive Learning module does with a scene, without Qt."""
