mod scenarios;
mod simulation;
mod stories;
