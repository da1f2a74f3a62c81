package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNoMember means that a machine is in no fleet.
var ErrNoMember = errors.New("the machine is in no fleet")

// LeaveHost takes everything of Clocker off the machine that it runs on, whose
// engine it is given: for a machine that joined by itself and that its fleet has
// let go. The fleet is not told. Without Force of the options, whose Fleet and
// Name are what the machine says of itself, containers that are not Clocker's
// and use its networks stop it with [ErrInUse].
func LeaveHost(ctx context.Context, o RemoveOptions, progress func(Progress)) (left string, err error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	if o.Kit == nil {
		if o.Kit, err = NewKit(Build{}); err != nil {
			return "", err
		}
	}
	m, err := ask(ctx, o.Engine)
	if err != nil {
		return "", err
	}
	if err := loadImage(ctx, o.Engine, o.Kit, m, nil, progress, m.info.Name); err != nil {
		return "", err
	}
	if err := m.look(ctx, o.Engine, time.Now); err != nil {
		return "", err
	}
	f := m.facts.Member
	if f == nil {
		_, err := removeImage(ctx, o.Engine, o.Kit.Image.Reference())
		return "", errors.Join(fmt.Errorf("leave fleet: %w", ErrNoMember), err)
	}
	o.Controller, o.Fleet, o.Name = nil, f.Fleet, f.Name
	return f.Fleet, RemoveHost(ctx, o, progress)
}
