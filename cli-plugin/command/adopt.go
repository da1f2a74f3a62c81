package command

import (
	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/fleet"
)

// steps shows the steps by which a host is taken in or out.
type steps struct {
	d    progress.Display
	last map[string]progress.Item // by subject
}

func (e *Env) steps(title string, quiet bool) *steps {
	return &steps{d: progress.New(e.cli.Err(), title, quiet, e.clock), last: map[string]progress.Item{}}
}

// add shows one step.
func (s *steps) add(p fleet.Progress) {
	if p.State == fleet.Note {
		s.d.Note("note: " + p.Subject + ": " + p.Text)
		return
	}
	it := progress.Item{ID: p.Subject + "/" + string(p.Step), Name: string(p.Step), Where: p.Subject, State: progress.Working, Text: p.Text}
	if p.State != fleet.Doing {
		it.State = progress.Done
	}
	s.last[p.Subject] = it
	s.d.Update(it)
}

// close shows which steps failed, if any, and gives the terminal back.
func (s *steps) close(err error) {
	for _, it := range s.last {
		if err != nil && it.State == progress.Working {
			it.State = progress.Failed
			s.d.Update(it)
		}
	}
	s.d.Close()
}
