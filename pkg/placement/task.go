package placement

import (
	"strconv"

	"clocker.io/clocker/pkg/model"
)

// task is a replica on a host.
type task struct {
	id           string
	host, kind   int32
	at           int32 // in the host's tasks
	service, app int32
	reserve      model.Amounts
	more         *extras
}

// extras are what few tasks have.
type extras struct {
	devices, generic map[string]int64
	ports            []port
}

// PutTask adds a task to a host, or changes it, by its id: also one that Place
// has reserved under that id. ports are what it holds, as [PortKey] has them.
// A task of a host that is not known is forgotten.
func (f *Fleet) PutTask(host string, t Task, ports []string) {
	f.RemoveTask(t.ID)
	i, known := f.byID[host]
	if !known {
		return
	}
	var held []port
	for _, key := range ports {
		if p, ok := parsePort(key); ok {
			held = append(held, p)
		}
	}
	f.putTask(i, t, held)
}

// RemoveTask forgets a task, or what Place has reserved under its id, and
// frees what it kept.
func (f *Fleet) RemoveTask(id string) {
	if i, known := f.byTask[id]; known {
		f.dropTask(i)
	}
}

// putTask adds a task whose ports are held already or, when it is new, not.
func (f *Fleet) putTask(host int32, t Task, held []port) {
	if t.ID != "" {
		f.RemoveTask(t.ID)
	}
	n := f.newTask(host, t.ID, f.kindOf(kind{t.App, t.Service, t.Parent, t.Type, t.Title}), t.Reserve)
	if len(held)+len(t.Devices)+len(t.Generic) > 0 {
		n.more = &extras{t.Devices, t.Generic, held}
		f.machines[host].hold(n, 1, f.holder(n))
	}
}

func (f *Fleet) holder(t *task) string {
	k := &f.kinds[t.kind]
	return k.app + "/" + k.service
}

// newTask adds a task without extras.
func (f *Fleet) newTask(host int32, id string, k kindRef, reserve model.Amounts) *task {
	var i int32
	if n := len(f.freeTasks); n > 0 {
		i, f.freeTasks = f.freeTasks[n-1], f.freeTasks[:n-1]
	} else {
		i = int32(len(f.tasks))
		f.tasks = append(f.tasks, task{})
	}
	if id != "" {
		f.byTask[id] = i
	}
	m := &f.machines[host]
	f.tasks[i] = task{id: id, host: host, kind: k.kind, at: int32(len(m.tasks)), service: k.service, app: k.app, reserve: reserve}
	m.tasks = append(m.tasks, i)
	f.count(&f.tasks[i], 1)
	return &f.tasks[i]
}

func (f *Fleet) dropTask(i int32) {
	t := &f.tasks[i]
	m := &f.machines[t.host]
	last := m.tasks[len(m.tasks)-1]
	m.tasks[t.at], f.tasks[last].at = last, t.at
	m.tasks = m.tasks[:len(m.tasks)-1]
	f.count(t, -1)
	if t.more != nil {
		m.hold(t, -1, "")
	}
	if t.id != "" {
		delete(f.byTask, t.id)
	}
	*t = task{}
	f.freeTasks = append(f.freeTasks, i)
}

// count adds a task to all counts, or takes it away.
func (f *Fleet) count(t *task, sign int32) {
	m := &f.machines[t.host]
	f.services.all[t.service].add(t.host, sign)
	f.apps.all[t.app].add(t.host, sign)
	m.used.NanoCPUs += int64(sign) * t.reserve.NanoCPUs
	m.used.MemoryBytes += int64(sign) * t.reserve.MemoryBytes
	m.used.PIDs += int64(sign) * t.reserve.PIDs
	f.settle(t.host)
	f.note(t.host, t.service, sign)
	for j := range m.kinds {
		if k := &m.kinds[j]; k.kind == t.kind {
			if k.n += sign; k.n == 0 {
				m.kinds[j] = m.kinds[len(m.kinds)-1]
				m.kinds = m.kinds[:len(m.kinds)-1]
			}
			return
		}
	}
	m.kinds = append(m.kinds, kindCount{t.kind, sign})
}

// hold takes a task's ports, devices and generic resources, or gives them back.
func (m *machine) hold(t *task, sign int64, holder string) {
	for _, p := range t.more.ports {
		if sign > 0 {
			m.ports.take(p, holder)
		} else {
			m.ports.release(p)
		}
	}
	if len(t.more.devices)+len(t.more.generic) > 0 {
		if m.gear == nil {
			m.gear = &gear{}
		}
		m.gear.use(t.more.devices, t.more.generic, sign)
	}
}

// kindRef is a kind with its service and application, as ids.
type kindRef struct{ kind, service, app int32 }

func (f *Fleet) kindOf(k kind) kindRef {
	id, known := f.kindIDs[k]
	if !known {
		id = int32(len(f.kinds))
		f.kindIDs[k] = id
		f.kinds = append(f.kinds, k)
		f.refs = append(f.refs, kindRef{id, f.services.id(k.app + "/" + k.service), f.apps.id(k.app)})
	}
	return f.refs[id]
}

// reservation names what Place reserves for a request without a task of its
// own.
func (f *Fleet) reservation() string {
	for {
		f.made++
		id := "reserved/" + strconv.Itoa(f.made)
		if _, taken := f.byTask[id]; !taken {
			return id
		}
	}
}
